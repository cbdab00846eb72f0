"""What a training costs: only what the machine tells."""

import subprocess
import sys

from command_line import ROOT

from patientdx.training.cost import Energy, Meter, peak_memory


def package(folder, number: int, joules: float, name: str = "package-0", span: int = 1_000_000_000):
    place = folder / f"intel-rapl:{number}"
    place.mkdir(exist_ok=True)
    (place / "name").write_text(f"{name}\n")
    (place / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    (place / "max_energy_range_uj").write_text(f"{span}\n")
    return place


def test_packages_are_added_up_and_their_parts_are_not(tmp_path):
    package(tmp_path, 0, 10)
    package(tmp_path, 1, 20, "package-1")
    package(tmp_path, 2, 30, "dram")
    energy = Energy(tmp_path)
    package(tmp_path, 0, 13)
    package(tmp_path, 1, 24, "package-1")
    package(tmp_path, 2, 99, "dram")
    assert energy.read() == 7.0


def test_a_counter_that_starts_again_goes_on(tmp_path):
    package(tmp_path, 0, 990)
    energy = Energy(tmp_path)
    package(tmp_path, 0, 5)
    assert energy.read() == 15.0
    package(tmp_path, 0, 6)
    assert energy.read() == 16.0


def test_a_machine_that_does_not_tell_is_not_guessed_for(tmp_path):
    assert Energy(tmp_path).read() is None
    (package(tmp_path, 0, 1) / "energy_uj").unlink()
    assert Energy(tmp_path).read() is None
    (package(tmp_path, 0, 1) / "energy_uj").write_text("")
    package(tmp_path, 1, 20, "package-1")
    assert Energy(tmp_path).read() is None


def test_a_meter_goes_on_from_an_earlier_start():
    first = Meter().read()
    assert first["seconds"] >= 0
    before = {"seconds": 100.0, "peak_memory_bytes": 1 << 50, "peak_gpu_memory_bytes": None, "energy_joules": None}
    later = Meter(before).read()
    assert later["seconds"] >= 100
    assert later["peak_memory_bytes"] == 1 << 50
    assert later["energy_joules"] is None  # what the earlier start drew is not known


def test_the_peak_is_of_this_program_and_not_of_the_one_that_started_it():
    held = bytearray(b"x") * 600_000_000
    code = "from patientdx.training.cost import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500_000_000 < len(held) < peak_memory()
