from stmorph.job import job, named

with job(snakemake):
    import pandas as pd

    from stmorph.encoders.embedding import embed_tiles, write_embedding
    from stmorph.encoders.joined import open_encoder
    from stmorph.image.store import open_store
    from stmorph.image.tiles import SlideTiles
    from stmorph.image.views import VIEWS

    config = snakemake.params.encoder
    encoder = open_encoder(config["model"], config["options"], named(snakemake.input)["weights"])
    tiles = pd.read_parquet(snakemake.input.tiles)
    tiles = tiles[tiles["kept"]]
    views = VIEWS[: config["views"]]
    reader = SlideTiles.of([snakemake.input.image], tiles)
    um_per_px = open_store(snakemake.input.image).um_per_px
    embedding = embed_tiles(encoder, reader, len(tiles), views, um_per_px=um_per_px)
    write_embedding(snakemake.output[0], embedding, tiles["barcode"].to_numpy(), encoder, views)
