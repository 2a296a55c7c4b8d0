"""linkcontext in other projects: folders of episodes that they load, and parts that they discover by entry points."""
