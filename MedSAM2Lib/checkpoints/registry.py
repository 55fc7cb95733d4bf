"""The models this library knows: what each is for, where its weights come from, what they look like when whole.

docs/models/README.md says where each size and hash was found. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass

from MedSAM2Lib.depth_prior import DepthPrior

__all__ = ["MODELS", "Model"]

_APACHE = "Apache-2.0"
_MEDSAM2_LICENCE = "CC-BY-SA-4.0, research and education only"
_SAM2_PAPER = "Ravi et al. 2024, arXiv 2408.00714"
_MEDSAM2_PAPER = "Ma et al. 2025, arXiv 2504.03600"
_MEDSAM_PAPER = "Ma et al. 2024, Nature Communications 15, 654"
_EFFICIENTTAM_PAPER = "Xiong et al. 2024, arXiv 2411.18933"
_MEDICAL_SAM2_PAPER = "Zhu et al. 2024, arXiv 2408.00874"


@dataclass(frozen=True)
class Model:
    """One set of weights."""

    id: str
    title: str
    purpose: str  # what it is for, as a person chooses
    network: str  # key of network.config.NETWORKS or SAM_NETWORKS
    file_name: str  # of the publisher; also in the store
    source: str  # the page where a person finds the file
    licence: str
    paper: str
    addresses: tuple[str, ...] = ()  # https, tried in this order; none: bundled
    bytes: int | None = None  # None: not known
    sha256: str | None = None  # None: not published; the first file that comes is pinned then
    bundled: bool = False
    depth_prior: DepthPrior | None = None  # how deep its objects are expected to be; None: it sees that by itself
    zoom: float | None = None  # side of the view on a slice, in sides of the prompt; None: the whole slice


_HUGGING_FACE = "huggingface.co"
_META = "dl.fbaipublicfiles.com/segment_anything_2"
# The state of wanglab/MedSAM2 that the sizes and the hash belong to: what is at its addresses cannot change.
_MEDSAM2_REVISION = "e4a6f35edd7e091619cbc0750f462f1574e23955"

_EFFICIENTTAM_REVISION = "3dfd0228d7774b94c24116cf729e03c209ff448a"  # likewise, of yunyangx/efficient-track-anything


def _medsam2(
    model_id: str,
    title: str,
    purpose: str,
    file_name: str,
    size: int | None,
    sha256: str | None = None,
    network: str = "medsam2",
) -> Model:
    return Model(
        id=model_id,
        title=title,
        purpose=purpose,
        network=network,
        file_name=file_name,
        source=f"{_HUGGING_FACE}/wanglab/MedSAM2",
        licence=_MEDSAM2_LICENCE,
        paper=_MEDSAM2_PAPER,
        addresses=(f"https://{_HUGGING_FACE}/wanglab/MedSAM2/resolve/{_MEDSAM2_REVISION}/{file_name}",),
        bytes=size,
        sha256=sha256,
    )


def _sam2(version: str, size_name: str, size: int, sha256: str) -> Model:
    folder = f"{_META}/{'092824' if version == '2.1' else '072824'}"
    family = "sam2.1" if version == "2.1" else "sam2"
    file_name = f"{family}_hiera_{size_name.replace('-', '_')}.pt"
    return Model(
        id=f"sam{version}-{size_name}",
        title=f"SAM {version} {size_name.replace('-', ' ')}: Meta's general weights at 1024 pixels",
        purpose="Any visible object; trained on photographs and videos, not on medical images",
        network=f"sam{version}-{size_name}",
        file_name=file_name,
        source=folder,
        licence=_APACHE,
        paper=_SAM2_PAPER,
        addresses=(
            f"https://{folder}/{file_name}",
            f"https://{_HUGGING_FACE}/facebook/{family}-hiera-{size_name}/resolve/main/{file_name}",
        ),
        bytes=size,
        sha256=sha256,
    )


def _efficienttam(size_name: str, short: str, size: int, sha256: str) -> Model:
    page = f"{_HUGGING_FACE}/yunyangx/efficient-track-anything"
    file_name = f"efficienttam_{short}_512x512.pt"
    return Model(
        id=f"efficienttam-{size_name}",
        title=f"EfficientTAM {size_name}: its authors' general weights at 512 pixels",
        purpose="What Efficient MedSAM2 was fine-tuned from; trained on photographs and videos, not on medical images",
        network=f"efficienttam-{size_name}",
        file_name=file_name,
        source=page,
        licence=_APACHE,
        paper=_EFFICIENTTAM_PAPER,
        addresses=tuple(f"https://{page}/resolve/{state}/{file_name}" for state in (_EFFICIENTTAM_REVISION, "main")),
        bytes=size,
        sha256=sha256,
    )


_MODELS = (
    Model(
        id="nano",
        title="nano, trained by this project on synthetic and public CT and MR; small, works offline",
        purpose="A first mask on any machine, without a download; see its card for what it cannot do",
        network="nano",
        file_name="nano.pt",
        source="bundled in Resources/Models",
        licence=_APACHE,
        paper="docs/models/nano.md",
        bundled=True,
        zoom=1.8,
        depth_prior=DepthPrior(bias=1.2, slope=3.5),
    ),
    _medsam2(
        "medsam2",
        "MedSAM2, latest: SAM 2.1 tiny fine-tuned on medical volumes at 512 pixels",
        "Organs and lesions on CT, MR, PET and ultrasound; its publishers' recommendation",
        "MedSAM2_latest.pt",
        156_040_129,
        "c92743b99f00d078bf32a3afcc38aaa9faf1c1692dffe3eaa7a90938c1991060",
    ),
    _medsam2(
        "medsam2-ct-lesion",
        "MedSAM2 fine-tuned for lesions on CT",
        "Lesions on CT",
        "MedSAM2_CTLesion.pt",
        156_041_079,
    ),
    _medsam2(
        "medsam2-mr-liver-lesion",
        "MedSAM2 fine-tuned for liver lesions on MR",
        "Liver lesions on MR",
        "MedSAM2_MRI_LiverLesion.pt",
        156_044_532,
    ),
    _medsam2(
        "medsam2-us-heart",
        "MedSAM2 fine-tuned for the heart on ultrasound",
        "The heart in echocardiography videos",
        "MedSAM2_US_Heart.pt",
        156_041_079,
    ),
    _medsam2(
        "medsam2-recist",
        "MedSAM2 as the baseline of the FLARE 2025 challenge for RECIST lines",
        "Lesions on CT from their longest diameter",
        "medsam2_FLARE25_RECIST_baseline.pt",
        None,
    ),
    _medsam2(
        "medsam2-2411",
        "MedSAM2 of November 2024, the base of the fine-tuned ones",
        "Repeating results that were made with it; otherwise take medsam2",
        "MedSAM2_2411.pt",
        156_039_179,
    ),
    *(
        _medsam2(
            f"efficient-medsam2-{size}",
            f"Efficient MedSAM2 {size}: EfficientTAM as the baseline of the FLARE 2025 challenge on a laptop's CPU",
            "Lesions on CT from their longest diameter, where medsam2-recist is too slow",
            f"eff_medsam2_{size}_FLARE25_RECIST_baseline.pt",
            None,
            network=f"efficienttam-{size}",
        )
        for size in ("tiny", "small")
    ),
    Model(
        id="medsam",
        title="MedSAM: SAM's ViT-B fine-tuned on medical images at 1024 pixels; single slices, from a box",
        purpose="A box on one image or slice, or a 3D box slice by slice; it remembers nothing from slice to slice",
        network="medsam",
        file_name="medsam_vit_b.pth",
        source="zenodo.org/records/10689643",
        licence="CC-BY-4.0 on Zenodo; its code Apache-2.0",
        paper=_MEDSAM_PAPER,
        addresses=("https://zenodo.org/records/10689643/files/medsam_vit_b.pth",),
        bytes=375_049_145,
        sha256="34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74",
    ),
    Model(
        id="medical-sam2",
        title="Medical SAM 2: the weights published with the self-sorting memory bank",
        purpose="Comparing with that paper; its users report poor masks with these weights",
        network="sam2.0-tiny",  # judged by its size in 16-bit numbers; loading says so if it is another
        file_name="MedSAM2_pretrain.pth",
        source=f"{_HUGGING_FACE}/jiayuanz3/MedSAM2_pretrain",
        licence="not stated with the weights; its code is marked GPL",
        paper=_MEDICAL_SAM2_PAPER,
        addresses=(f"https://{_HUGGING_FACE}/jiayuanz3/MedSAM2_pretrain/resolve/main/MedSAM2_pretrain.pth",),
        bytes=78_078_138,
        sha256="059572b072eff2e41975bf85b0dcca96bc58889db60a89e9f5b1f075236735d7",
    ),
    _efficienttam("tiny", "ti", 71_620_052, "7d4d652a465f0081391050932f45d8a66768ccc99c8ea393ce8a5927e83f3b9b"),
    _efficienttam("small", "s", 136_379_145, "67b5840012737ed2c94a4cb8787c5c1b27b3a946045d2e602e65ef77230b6085"),
    _sam2("2.1", "tiny", 156_008_466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _sam2("2.1", "small", 184_416_285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _sam2("2.1", "base-plus", 323_606_802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _sam2("2.1", "large", 898_083_611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
    _sam2("2.0", "tiny", 155_906_050, "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125"),
    _sam2("2.0", "small", 184_309_650, "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3"),
    _sam2("2.0", "base-plus", 323_493_298, "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071"),
    _sam2("2.0", "large", 897_952_466, "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b"),
)

MODELS: dict[str, Model] = {model.id: model for model in _MODELS}
