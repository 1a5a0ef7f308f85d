"""Writes lightning_<version>.zip: a checkpoint of Lightning after one step. Needs lightning, omegaconf and torch.

``python make_lightning.py [UNITS]``, in tests/data. The test knows the numbers: all parameters are set before saving.
"""

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import sys
import uuid
import zipfile

import lightning
import numpy as np
import torch
from omegaconf import OmegaConf


class Colour(enum.Enum):
    RED = 1


class Model(lightning.LightningModule):
    def __init__(self, units, settings, **more):
        super().__init__()
        self.save_hyperparameters()
        self.lstm = torch.nn.LSTM(2, units, batch_first=True)
        self.head = torch.nn.Linear(units, 1)
        self.register_buffer("mean", torch.zeros(2), persistent=False)

    def training_step(self, batch, index):
        loss = self.head(self.lstm(batch[0])[0]).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


def main(units):
    model = Model(
        units, OmegaConf.create({"a": {"b": [1, None, "x"]}, "c": "${a.b}"}), counter=collections.Counter("aab"),
        device=torch.device("cpu"), dtype=torch.float64, bytes=b"\0\xff",
        complex=1j, slice=slice(1, 2), pair={(1, 2): 3},
        scalar=np.float32(1), array=np.arange(3), names=argparse.Namespace(x=1), path=pathlib.Path("x"), set={1, 2},
        date=datetime.datetime(2020, 1, 1), decimal=decimal.Decimal(1), fraction=fractions.Fraction(1, 2),
        uuid=uuid.UUID(int=1), colour=Colour.RED, function=torch.tanh, cls=torch.nn.ReLU, frozen=frozenset("a"),
    )
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(2, 5, 2)))
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        callbacks=[lightning.pytorch.callbacks.EarlyStopping("loss")],
    )
    trainer.fit(model, data)
    with torch.no_grad():
        for start, tensor in enumerate(model.state_dict().values()):
            tensor.copy_(torch.arange(start, start + tensor.numel()).reshape(tensor.shape) / 64)
    trainer.save_checkpoint("sample.ckpt")
    with zipfile.ZipFile(f"lightning_{lightning.__version__}.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.write("sample.ckpt")
    pathlib.Path("sample.ckpt").unlink()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
