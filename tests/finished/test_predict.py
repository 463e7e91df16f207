"""Finished runs on single images, and as files for others: predict and export."""

import contextlib
import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import run, small

from normexp import export, predict
from normexp.finished import finished_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, directory = small(tmp_path_factory.mktemp("runs"), "norm=bn", "epochs=1")
    run(config, directory)
    return directory.path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One picture in many guises: all are the same once they are RGB, upright and 8x8."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    grey[2:5] = 255
    picture = Image.fromarray(grey)
    picture.save(folder / "grey.png")
    picture.convert("RGB").save(folder / "colour.png")
    # Where it is white, transparent black; elsewhere opaque.
    layers = [np.where(grey == 255, 0, grey), np.where(grey == 255, 0, 255).astype(np.uint8)]
    Image.fromarray(np.dstack(layers)).save(folder / "below" / "with_alpha.png")
    picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(folder / "palette.gif")
    Image.fromarray(grey.astype(np.uint16) << 8).save(folder / "sixteen_bits.png")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(folder / "turned.png", exif=exif)
    (folder / "notes.txt").write_text("not an image, and not named as one")
    return folder


NAMES = (
    *("below/with_alpha.png", "colour.png", "grey.png", "palette.gif", "sixteen_bits.png"),
    "turned.png",
)


def by_hand(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Probabilities of an image, uint8 (8,8,3), by a network that is fed without normexp."""
    loaded = finished_run.load(path)
    inputs = (pixels / 255 - np.array(loaded.mean)) / np.array(loaded.std)
    with torch.no_grad():
        network = loaded.network.eval()
        logits = network(torch.from_numpy(inputs.transpose(2, 0, 1)[None]).float())[0]
    powers = np.exp(logits.double().numpy())
    shares: np.ndarray = powers / powers.sum()
    return shares


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        predict.main([*arguments])
    assert isinstance(left.value.code, int)
    return left.value.code


def test_images_of_any_mode_get_the_networks_probabilities(
    trained: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(str(trained), str(images), "--top", "10", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["image"] for each in found] == [str(images / name) for name in NAMES]
    with Image.open(images / "colour.png") as picture:
        expected = by_hand(trained, np.asarray(picture))
    order = expected.argsort()[::-1]
    for each in found:
        guesses = each["predictions"]
        assert [guess["class"] for guess in guesses] == [f"pattern {index}" for index in order]
        shares = [guess["probability"] for guess in guesses]
        np.testing.assert_allclose(shares, expected[order], atol=1e-6)


def test_other_sizes_are_resized_as_a_folder_of_training_images_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (31, 50, 3), np.uint8))
    picture.save(tmp_path / "wide.png")
    assert call(str(trained), str(tmp_path / "wide.png"), "--json", "--top", "1") == 0
    ((guess,),) = (each["predictions"] for each in json.loads(capsys.readouterr().out))
    small_one = picture.resize((8, 8), Image.Resampling.BILINEAR)
    expected = by_hand(trained, np.asarray(small_one))
    assert guess["class"] == f"pattern {expected.argmax()}"
    assert guess["probability"] == pytest.approx(expected.max(), abs=1e-6)


def test_what_is_no_image_is_named_and_the_others_are_done(
    trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    bad = [images / "notes.txt", tmp_path / "missing.png", tmp_path / "empty"]
    good = images / "grey.png"
    assert call(str(trained), str(bad[0]), str(good), *map(str, bad[1:])) == 1
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    assert line.startswith(str(good))
    assert line.count("%") == 3
    lines = shown.err.splitlines()
    assert len(lines) == 3
    assert all(str(path) in line for path, line in zip(bad, lines, strict=True))


def test_standard_input_and_a_picture_sheet(
    trained: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Piped:
        buffer = io.BytesIO((images / "grey.png").read_bytes())

    Piped.buffer.name = "<stdin>"  # type: ignore[attr-defined]
    monkeypatch.setattr("sys.stdin", Piped)
    sheet = tmp_path / "sheet.png"
    assert call(str(trained), "-", str(images / "grey.png"), "--figure", str(sheet)) == 0
    piped, read = capsys.readouterr().out.splitlines()
    assert piped.removeprefix("-") == read.removeprefix(str(images / "grey.png"))
    with Image.open(sheet) as picture:
        picture.load()
    assert call(str(trained), str(images), "--figure", str(tmp_path / "sheet.doc")) == 2
    assert ".doc" in capsys.readouterr().err


def test_a_run_scored_with_precise_statistics_predicts_with_them(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, directory = small(
        tmp_path, "norm=bn", "epochs=1", "max_steps=3", "evaluate.bn_stats=precise",
        "evaluate.precise_samples=90",
    )  # fmt: skip
    run(config, directory)
    loaded = finished_run.load(directory.path)
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    with loaded.for_single_images():
        inside = loaded.network.state_dict()
        assert not torch.equal(inside["norm1.running_var"], before["norm1.running_var"])
    after = loaded.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


# --- Export


def exported(path: Path, form: str, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    export.main([str(path), "--format", form, "--out", str(out)])
    return capsys.readouterr().out


def expected_of(path: Path, pixels: torch.Tensor) -> np.ndarray:
    loaded = finished_run.load(path)
    with loaded.for_single_images():
        return loaded.logits(pixels).numpy()


PIXELS = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(
    torch.uint8
)


def test_a_program_of_torch_export_gives_the_runs_answers(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.pt2"
    assert "read back" in exported(trained, "pt2", out, capsys)
    facts: dict[str, Any] = {"normexp.json": ""}
    program = torch.export.load(out, extra_files=facts).module()
    for count in (1, 5):
        found = program(PIXELS[:count] / 255).detach().numpy()
        np.testing.assert_allclose(found, expected_of(trained, PIXELS[:count]), atol=1e-5)
    assert json.loads(facts["normexp.json"])["classes"][3] == "pattern 3"


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra `export` is not installed",
)
def test_onnx_gives_the_runs_answers(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    out = tmp_path / "run.onnx"
    exported(trained, "onnx", out, capsys)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        (found,) = session.run(None, {"images": PIXELS[:count].numpy().astype(np.float32) / 255})
        np.testing.assert_allclose(found, expected_of(trained, PIXELS[:count]), atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["normexp.classes"])[3] == "pattern 3"


SNIPPET = "cifar10-jpeg/test/ship/0003.jpg"
"""The image that the snippet in docs/finished-runs.md reads."""


def odd_images() -> dict[str, tuple[Image.Image, str, dict[str, Any]]]:
    """Pictures that programs read differently: {name: (picture, format, how it is saved)}."""
    numbers = np.random.default_rng(2).integers(0, 256, (40, 61, 4), np.uint8)
    rgba, rgb = Image.fromarray(numbers), Image.fromarray(numbers[..., :3])
    grey = rgb.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return {
        "plain": (rgb, "PNG", {}),
        "transparent": (rgba, "PNG", {}),
        "turned": (rgb, "JPEG", {"exif": exif}),
        "turned and transparent": (rgba, "PNG", {"exif": exif}),
        "palette, transparent": (palette, "GIF", {"transparency": 3}),
        "colour key": (rgb, "PNG", {"transparency": tuple(numbers[0, 0, :3].tolist())}),
        "cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "grey with alpha": (Image.merge("LA", (grey, rgba.getchannel("A"))), "PNG", {}),
        "one bit": (grey.convert("1"), "PNG", {}),
        "one pixel": (rgb.resize((1, 1)), "PNG", {}),
        "long": (rgb.resize((3, 500)), "PNG", {}),
        "as large as the network's": (rgb.resize((32, 32)), "PNG", {}),
    }


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra `export` is not installed",
)
def test_the_snippet_of_the_documentation_says_what_predict_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "finished-runs.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    settings = ("norm=bn", "epochs=1", "data.image_size=32", "max_steps=20")
    config, directory = small(tmp_path, *settings)
    run(config, directory)
    monkeypatch.chdir(tmp_path)
    exported(directory.path, "onnx", Path("run.onnx"), capsys)
    file = Path(SNIPPET)
    file.parent.mkdir(parents=True)
    for name, (picture, form, options) in odd_images().items():
        picture.save(file, form, **options)
        capsys.readouterr()
        assert call(str(directory.path), SNIPPET, "--json", "--top", "10") == 0
        ((guesses,),) = ([each["predictions"]] for each in json.loads(capsys.readouterr().out))
        found: dict[str, Any] = {}
        exec(snippet, found)
        powers = np.exp(found["logits"][0].astype(np.float64))
        shares = dict(zip(found["classes"], powers / powers.sum(), strict=True))
        expected = {guess["class"]: guess["probability"] for guess in guesses}
        assert shares == pytest.approx(expected, abs=1e-5), name
        assert capsys.readouterr().out == f"{guesses[0]['class']}\n"
    Image.fromarray(np.full((5, 5), 4000, np.uint16)).save(file, "PNG")
    with pytest.raises(ValueError, match="deeper than 8 bits"):
        exec(snippet, {})


def test_a_run_trained_by_force_keeps_no_export_of_its_old_weights(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "norm=bn", "epochs=1", "max_steps=2", "force=true")
    run(config, directory)
    export.main([str(directory.path), "--format", "pt2"])
    assert len(list((directory.path / "export").iterdir())) == 1
    run(config, directory)
    assert list((directory.path / "export").iterdir()) == []


def test_the_format_is_that_of_the_files_ending(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export.main([str(trained), "--out", str(tmp_path / "run.pt2")])
    torch.export.load(tmp_path / "run.pt2")
    with pytest.raises(SystemExit) as left:
        export.main([str(trained), "--format", "pt2", "--out", str(tmp_path / "run.onnx")])
    assert left.value.code == 2
    assert "two formats" in capsys.readouterr().err
    assert not (tmp_path / "run.onnx").exists()


def test_a_missing_package_is_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as left:
        export.main([str(trained)])
    assert left.value.code == 2
    assert "pip install 'normexp[export]'" in capsys.readouterr().err


@pytest.mark.parametrize("norm", ["evonorm_b0", "switchable"])
def test_norms_written_here_can_be_exported(norm: str, tmp_path: Path) -> None:
    from normexp.finished import exporting

    config, directory = small(tmp_path, f"norm={norm}", "epochs=1", "max_steps=2")
    with contextlib.redirect_stdout(io.StringIO()):
        run(config, directory)
    loaded = finished_run.load(directory.path)
    with loaded.for_single_images():
        assert exporting.export(loaded, "pt2", tmp_path / "run.pt2") < 1e-5
