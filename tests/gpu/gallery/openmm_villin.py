"""OpenMM: a protein in water (8,867 atoms, a file of the package), as in the first example of its user guide."""

import os

from openmm import LangevinMiddleIntegrator, Platform, app
from openmm.unit import kelvin, kilojoules_per_mole, nanometer, picosecond, picoseconds

import given


def main() -> None:
    pdb = app.PDBFile(os.path.join(os.path.dirname(app.__file__), "data", "test.pdb"))
    forces = app.ForceField("amber14-all.xml", "amber14/tip3pfb.xml")
    system = forces.createSystem(pdb.topology, nonbondedMethod=app.PME,
                                 nonbondedCutoff=1 * nanometer, constraints=app.HBonds)
    integrator = LangevinMiddleIntegrator(300 * kelvin, 1 / picosecond, 0.004 * picoseconds)
    integrator.setRandomNumberSeed(1)
    platform = Platform.getPlatform("CPU" if given.CPU else "CUDA")
    exact = {"Threads": "1"} if given.CPU else {"Precision": "mixed"}
    simulation = app.Simulation(pdb.topology, system, integrator, platform,
                                {**exact, "DeterministicForces": "true"})
    simulation.context.setPositions(pdb.positions)
    simulation.context.setVelocitiesToTemperature(300 * kelvin, 1)
    simulation.step(given.rounds(1000))
    state = simulation.context.getState(getEnergy=True)
    print(state.getPotentialEnergy().value_in_unit(kilojoules_per_mole))


main()
