"""Triton kernels of bdgf_fast. They ship as `bdgf_fast.triton_kernels`; the top-level name belongs to another project."""

if __name__ == "triton_kernels":
    raise ImportError("import bdgf_fast.triton_kernels: the folder triton_kernels is not a top-level package")
