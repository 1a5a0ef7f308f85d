import torch

class Report:
    module: torch.nn.Module
    replaced: dict[str, str]
    left: dict[str, str]
    def __init__(self, module: torch.nn.Module) -> None: ...

def accelerate(module: torch.nn.Module) -> Report: ...
def restore(module: torch.nn.Module) -> Report: ...
