"""From files to shards: as litdata lays them out to train on, or as tars of files, the layout of WebDataset."""

from perpixel.sharding.write import FORMS, shard

__all__ = ["FORMS", "shard"]
