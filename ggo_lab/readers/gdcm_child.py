"""The program that runs GDCM's decoders apart: reads names of DICOM files on stdin, writes their pixels to stdout.

It begins with a line "ready". For each name comes a line with the number type and the count of bytes, then the bytes;
or a line "failed 0". It imports nothing of ggo_lab, so that it starts quickly.
"""

import sys

import SimpleITK as sitk


def main() -> None:
    """Answer until stdin ends."""
    out = sys.stdout.buffer
    out.write(b"ready\n")
    out.flush()
    for name in sys.stdin:
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(name.rstrip("\n"))
        try:
            values = sitk.GetArrayFromImage(reader.Execute())
            out.write(f"{values.dtype.str} {values.nbytes}\n".encode())
            out.write(values.tobytes())
        except RuntimeError:
            out.write(b"failed 0\n")
        out.flush()


if __name__ == "__main__":
    main()
