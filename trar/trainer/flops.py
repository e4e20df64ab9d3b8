"""What one forward pass costs, by torch's FlopCounterMode."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trar.trainer.batch import Batch, model_inputs


def sample_flops(model: nn.Module, sample: Batch) -> int:
    """Floating-point operations of the forward pass of a batch of one, multiplications and
    additions counted apart: those of matrix products and convolutions.

    Counted on the CPU, eagerly, without oneDNN: the counter cannot look into kernels of Triton,
    cuDNN's and oneDNN's LSTM, or a compiled graph.
    """
    cpu = torch.device("cpu")
    on_cpu, training = next(model.parameters()).device == cpu, model.training
    counted = model if on_cpu else copy.deepcopy(model).to(cpu)
    counted.eval()
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oneDNN's switch talks of GPUs that nobody has asked for
        with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False), counter:
            counted.forward(*model_inputs(counted, sample.to(cpu)))  # a call may be compiled
    model.train(training)
    return int(counter.get_total_flops())
