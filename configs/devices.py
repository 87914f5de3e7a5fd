"""GPUs' published speeds."""

# Dense bf16 peak in FLOP/s from the makers' data sheets, by a part of torch's name of the device.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}
