"""The models this library knows: what each is for, where its weights come from, what they look like when whole.

Sizes and hashes of published files are those of their public pages; see docs/models. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass

from MedSAM2Lib.depth_prior import DepthPrior

__all__ = ["MODELS", "Model"]

_APACHE = "Apache-2.0"
_MEDSAM2_LICENCE = "CC-BY-SA-4.0, research and education only"
_SAM2_PAPER = "Ravi et al. 2024, arXiv 2408.00714"
_MEDSAM2_PAPER = "Ma et al. 2025, arXiv 2504.03600"


@dataclass(frozen=True)
class Model:
    """One set of weights."""

    id: str
    title: str
    network: str  # key of network.config.NETWORKS
    file_name: str
    source: str  # where a person can get the file
    licence: str
    paper: str
    bytes: int | None = None  # None: not published
    sha256: str | None = None  # None: not published
    bundled: bool = False
    depth_prior: DepthPrior | None = None  # how deep its objects are expected to be; None: it sees that by itself
    zoom: float | None = None  # side of the view on a slice, in sides of the prompt; None: the whole slice


_HUGGING_FACE = "huggingface.co"
_META = "dl.fbaipublicfiles.com/segment_anything_2"

_MODELS = (
    Model(
        id="nano",
        title="nano, trained by this project on synthetic and public CT and MR; small, works offline",
        network="nano",
        file_name="nano.pt",
        source="bundled in Resources/Models",
        licence=_APACHE,
        paper="docs/models/nano.md",
        bundled=True,
        zoom=1.8,
        depth_prior=DepthPrior(bias=0.7, slope=1.5),
    ),
    Model(
        id="medsam2",
        title="MedSAM2, latest: SAM 2.1 tiny fine-tuned on medical volumes at 512 pixels",
        network="medsam2",
        file_name="MedSAM2_latest.pt",
        source=f"{_HUGGING_FACE}/wanglab/MedSAM2",
        licence=_MEDSAM2_LICENCE,
        paper=_MEDSAM2_PAPER,
        bytes=156_040_129,
        sha256="c92743b99f00d078bf32a3afcc38aaa9faf1c1692dffe3eaa7a90938c1991060",
    ),
    *(
        Model(
            id=f"medsam2-{purpose}",
            title=f"MedSAM2 fine-tuned for {what}",
            network="medsam2",
            file_name=file_name,
            source=f"{_HUGGING_FACE}/wanglab/MedSAM2",
            licence=_MEDSAM2_LICENCE,
            paper=_MEDSAM2_PAPER,
        )
        for purpose, what, file_name in (
            ("ct-lesion", "lesions on CT", "MedSAM2_CTLesion.pt"),
            ("mr-liver-lesion", "liver lesions on MR", "MedSAM2_MRI_LiverLesion.pt"),
            ("us-heart", "the heart on ultrasound", "MedSAM2_US_Heart.pt"),
        )
    ),
    *(
        Model(
            id=f"sam{version}-{size}",
            title=f"SAM {version} {size.replace('-', ' ')}: Meta's general weights at 1024 pixels",
            network=f"sam{version}-{size}",
            file_name=f"sam2{'.1' if version == '2.1' else ''}_hiera_{size.replace('-', '_')}.pt",
            source=f"{_META}/{'092824' if version == '2.1' else '072824'}",
            licence=_APACHE,
            paper=_SAM2_PAPER,
            bytes=size_bytes,
            sha256=sha256,
        )
        for version, size, size_bytes, sha256 in (
            ("2.1", "tiny", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
            ("2.1", "small", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
            ("2.1", "base-plus", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
            ("2.1", "large", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
            ("2.0", "tiny", 155_906_050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
            ("2.0", "small", None, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
            ("2.0", "base-plus", None, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
            ("2.0", "large", None, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
        )
    ),
)

MODELS: dict[str, Model] = {model.id: model for model in _MODELS}
