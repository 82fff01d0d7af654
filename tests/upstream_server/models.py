"""The models that upstream's tests name, each made of ours: a folder for tests/downloads/hub.py."""

import shutil
import struct
import zlib

import gguf
import numpy

PRESET = """[tinygemma3-preset]
hf-repo = ggml-org/tinygemma3-GGUF:Q8_0

[stories260K-test]
hf-repo = ggml-org/test-model-stories260K
"""

# Copies of the model. What a preset asks for by a quantisation finds it in the name of the file.
COPIES = [
    "test-model-stories260K/stories260K-F32.gguf",
    "test-model-router-download/model-F16.gguf",
    "models/tinyllamas/stories260K.gguf",
    "models/jina-reranker-v1-tiny-en/ggml-model-f16.gguf",
    "tiny-llamas/stories15M-q4_0.gguf",
    "stories15M_MOE/stories15M_MOE-F16.gguf",
    "tinylaya-for-testing-gguf/tinylaya-Q8_0.gguf",
    "tinyopenjev-for-testing-gguf/tinyopenjev-Q8_0.gguf",
    "tinygemma3-GGUF/tinygemma3-Q8_0.gguf",
]
PICTURES = ["tinygemma3-GGUF/test/11_truck.png", "tinygemma3-GGUF/test/91_cat.png"]


def make(model, hub):
    """Fills the folder `hub` with what `model` stands for."""
    owner = hub / "ggml-org"
    for path in COPIES:
        to = owner / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, to)
    for number, path in enumerate(PICTURES):
        to = owner / path
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(picture(number))
    preset = owner / "test-preset-ci/preset.ini"
    preset.parent.mkdir(parents=True)
    preset.write_text(PRESET)

    reader = gguf.GGUFReader(model)
    embedding = owner / "models/bert-bge-small/ggml-model-f16.gguf"
    embedding.parent.mkdir()
    write(reader, embedding, numbers={f"{architecture(reader)}.pooling_type": int(gguf.PoolingType.MEAN)})
    infill = owner / "test-model-stories260K-infill/stories260K-infill-F32.gguf"
    infill.parent.mkdir()
    last = len(reader.fields["tokenizer.ggml.tokens"].data) - 1
    fim = {f"tokenizer.ggml.fim_{name}_token_id": last - i for i, name in enumerate(["pre", "suf", "mid"])}
    write(reader, infill, numbers=fim)
    split = owner / "models/tinyllamas/split/stories15M-q8_0.gguf"
    split.parent.mkdir()
    write(reader, split, split_max_tensors=-(-len(reader.tensors) // 3))
    adapter(reader, owner / "stories15M_MOE/moe_shakespeare15M.gguf")


def architecture(reader):
    return reader.fields["general.architecture"].contents()


def write(reader, path, numbers={}, **options):
    """The same model with more metadata, or in several files."""
    writer = gguf.GGUFWriter(path, architecture(reader), **options)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type)
    for name, number in numbers.items():
        writer.add_uint32(name, number)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    finish(writer)


def adapter(reader, path, rank=4):
    """A LoRA for the outputs of the attention and all experts."""
    random = numpy.random.default_rng(7)
    writer = gguf.GGUFWriter(path, architecture(reader))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for tensor in reader.tensors:
        if tensor.name.endswith("_exps.weight") or tensor.name.endswith("attn_output.weight"):
            n_in, n_out, *n_experts = (int(n) for n in tensor.shape)
            for name, shape in [("lora_a", (rank, n_in)), ("lora_b", (n_out, rank))]:
                values = random.normal(0, 0.5 / shape[1] ** 0.5, (*n_experts, *shape))
                writer.add_tensor(f"{tensor.name}.{name}", values.astype(numpy.float32))
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def picture(number, width=32):
    """A PNG in which every row is another grey."""
    rows = b"".join(b"\0" + bytes([(row * 8 + number * 90) % 256] * width) for row in range(width))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, width, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
