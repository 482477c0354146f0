"""What the caller has set for the whole of torch does not reach into what is computed here."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def settled() -> Iterator[None]:
    """Compute as torch does when nobody has set anything for all of it; also a decorator.

    Inside, nothing is inference mode or autocast unless the block itself asks for it, new tensors have 32 bits and lie
    on the CPU, and products of matrices are not rounded further.
    """
    import torch  # a room above may not need it

    kind, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast("cuda", enabled=False))
        # Every step inside such a block costs a little time, so it is entered only where it changes something. A tensor
        # tells: to ask for the default device ends in an error in torch 2.7 where it was set to None.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.callback(torch.set_default_dtype, kind)
        torch.set_default_dtype(torch.float32)
        if precision != "highest":
            stack.callback(torch.set_float32_matmul_precision, precision)
            torch.set_float32_matmul_precision("highest")
        yield
