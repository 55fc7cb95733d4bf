"""What the panel of MedSAM2 is made of: one class per file. Bridges and logic know MRML and no Qt; Widget files know both."""
