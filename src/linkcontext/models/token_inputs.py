"""What decoders take for the tokens of a pass: their embeddings, and more in families that embed a token several times.

The functions here are fields of `families.Family`. Their arguments are the network, the tokens int64[rows, n], and
bool[rows, n]: which of them spell an image. They return the embeddings float[rows, n, width], which image features
replace afterwards, and further arguments of the decoder by name.
"""

from typing import Any

from torch import Tensor

TokenInputs = tuple[Tensor, dict[str, Tensor]]


def embedded(network: Any, ids: Tensor, in_image: Tensor) -> TokenInputs:
    """The rows of the embedding matrix."""
    return network.get_input_embeddings()(ids), {}


def embedded_for_each_layer(network: Any, ids: Tensor, in_image: Tensor) -> TokenInputs:
    """The same, and an embedding for every layer if the decoder has them. Images count as padding there."""
    decoder = network.get_decoder()
    ids = ids.masked_fill(ids == network.config.image_token_id, decoder.config.pad_token_id)
    embeds = network.get_input_embeddings()(ids)
    if not decoder.config.hidden_size_per_layer_input:
        return embeds, {}
    return embeds, {"per_layer_inputs": decoder.get_per_layer_inputs(ids, embeds)}


def embedded_by_modality(network: Any, ids: Tensor, in_image: Tensor) -> TokenInputs:
    """An embedding for every layer, and a matrix of its own for the marks of images, whose tokens are behind text's."""
    vision = network.model.embed_vision
    embeds = network.get_input_embeddings()(ids)
    is_vision = (ids >= vision.vocab_offset) & (ids < network.model.embed_audio.vocab_offset)
    if is_vision.any():
        embeds = embeds.masked_scatter(is_vision[..., None], vision(input_ids=ids[is_vision][None]).to(embeds.dtype))
    decoder = network.get_decoder()
    in_table = ids.masked_fill(ids >= decoder.config.vocab_size_per_layer_input, 0)
    return embeds, {"per_layer_inputs": decoder.get_per_layer_inputs(in_table)}


def embedded_with_indicators(network: Any, ids: Tensor, in_image: Tensor) -> TokenInputs:
    """The marks of an image are rows of the visual vocabulary: its last ones, in their order."""
    core = network.model
    embeds = network.get_input_embeddings()(ids)
    marks = core.visual_indicator_token_ids
    for number, mark in enumerate(marks, core.visual_vocab_size - len(marks)):
        row = core.visual_embeddings_table.weight[number].to(embeds.dtype)
        embeds = embeds.where(~(in_image & (ids == mark))[..., None], row)
    return embeds, {}


def embedded_with_routes(network: Any, ids: Tensor, in_image: Tensor) -> TokenInputs:
    """The rows of the embedding matrix, and which tokens belong to images, marks included: they have other experts."""
    config = network.config
    is_mark = (ids == config.image_start_token_id) | (ids == config.image_end_token_id)
    routes = is_mark | (ids == config.image_token_id)
    return network.get_input_embeddings()(ids), {"moe_mm_token_type_ids": routes.int()}
