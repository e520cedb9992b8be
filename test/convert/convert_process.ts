/** Converts in a process of its own, and tells the most memory it ever had: INPUT OUTPUT [TYPE] */
import { convertModel } from '../../src/convert/convert.js';
import type { WrittenType } from '../../src/convert/types.js';
import { openModel } from '../../src/formats/index.js';
import { Device } from '../../src/runtime/device.js';

const [input, output, type] = process.argv.slice(2) as [string, string, WrittenType | undefined];
await using device = Device.open('cpu');
await convertModel(device, openModel(input), output, { type });
console.log(process.resourceUsage().maxRSS * 1024);
