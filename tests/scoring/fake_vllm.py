"""A server with vLLM's fields, as a function: its model gives every token a log-probability that depends on all before.

Words are cut into pieces of two letters. A picture is one token. Every request is kept in `requests`.
"""

import hashlib
from types import SimpleNamespace

from linkcontext.scoring.replicas import Refused

USER, REPLY, END = "<user>", "<reply>", "<end>"


class FakeVllm:
    """What `ServerConnection.complete` does, with options for servers that differ."""

    def __init__(self, before_answer=(), after_end=(), cut=2, **flaws):
        self.before_answer, self.after_end, self.cut, self.flaws = before_answer, after_end, cut, flaws
        self.vocabulary, self.requests = {}, []

    def __call__(self, messages, new_tokens, only=None, **fields):
        self.requests.append((messages, new_tokens, fields))
        if unknown := {*self.flaws.get("refuses", ())} & {*fields}:
            raise Refused(f"refuses (400): {min(unknown)}")
        prompt = self.ids(messages, **{name: fields[name] for name in OPEN if name in fields})
        rows, generated = [], []
        wanted, allowed = fields.get("logprob_token_ids"), fields.get("allowed_token_ids")
        for _ in range(new_tokens):
            here = [*prompt, *generated]
            among = allowed or range(len(self.vocabulary))
            best = max(among, key=lambda token: self.logprob(here, token))
            rows.append([(each, self.logprob(here, each, allowed)) for each in dict.fromkeys((best, *(wanted or ())))])
            generated.append(best)
            if self.text(best) == END:
                break
        if self.flaws.get("few"):
            rows = [row[:2] for row in rows]
        more = {"prompt_token_ids": prompt} if fields.get("return_token_ids") else {}
        if "prompt_logprobs" in fields and not self.flaws.get("no_prompt_logprobs"):
            more["prompt_logprobs"] = [None, *(self.row(prompt[:at], prompt[at]) for at in range(1, len(prompt)))]
        return SimpleNamespace(model_extra=more, choices=[self.choice(rows, generated, fields)])

    def choice(self, rows, generated, fields):
        """The only choice of a response."""
        name = (lambda token: f"token_id:{token}") if fields.get("return_tokens_as_token_ids") else self.text
        content = [
            SimpleNamespace(top_logprobs=[SimpleNamespace(token=name(t), logprob=value) for t, value in row])
            for row in rows
        ]
        logprobs = SimpleNamespace(content=content) if fields.get("logprobs") else None
        return SimpleNamespace(logprobs=logprobs, model_extra={"token_ids": generated})

    def row(self, before, token):
        """A token of a prompt as `prompt_logprobs` has it."""
        return {str(token): {"logprob": self.logprob(before, token), "decoded_token": self.text(token)}}

    def ids(self, messages, add_generation_prompt=True, continue_final_message=False):
        """The token ids of a conversation."""
        pieces = []
        for place, message in enumerate(messages):
            user = message["role"] == "user"
            pieces += [USER] if user else [REPLY, *self.before_answer]
            for part in message["content"]:
                text = part.get("text", "")
                pieces += [text[i : i + self.cut] for i in range(0, len(text), self.cut)] if text else ["<picture>"]
            if not (continue_final_message and place == len(messages) - 1):
                pieces += [END, *self.after_end]
        pieces += [REPLY] if add_generation_prompt and not continue_final_message else []
        return [self.vocabulary.setdefault(piece, len(self.vocabulary)) for piece in pieces]

    def text(self, token):
        """A token's text."""
        return list(self.vocabulary)[token]

    def logprob(self, before, token, allowed=None):
        """The log-probability of a token, in nats, by a hash of the texts before it."""
        texts = [self.text(each) for each in (*before, token)]
        value = -int(hashlib.sha256("|".join(texts).encode()).hexdigest()[:6], 16) / 2**20
        return value / 2 if allowed and self.flaws.get("masked") else value


OPEN = ("add_generation_prompt", "continue_final_message")
