/** The instruction sets that this CPU runs, so that tests try every one of them and say which they could not. */
import { Device, INSTRUCTION_SETS, type InstructionSet } from '../../src/runtime/device.js';

function runs(instructions: InstructionSet): boolean {
  try {
    Device.open('cpu', { instructions }).close();
    return true;
  } catch {
    return false;
  }
}

export const SUPPORTED = INSTRUCTION_SETS.filter(runs);

const missing = INSTRUCTION_SETS.filter((name) => !SUPPORTED.includes(name));
if (missing.length) console.log(`not tested, this CPU cannot run it: ${missing.join(', ')}`);
