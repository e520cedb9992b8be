/**
 * Recognises PyTorch's pickle checkpoints, which this package never opens: unpickling runs code from the file.
 * Zip archives (torch ≥ 1.6), TorchScript archives, bare pickles (older torch).
 */
import type { ByteSource } from './byte_source.js';

/** The zip directory of a checkpoint lists one entry per tensor; its names are at the end. */
const kTailBytes = 1 << 20;

const kAdvice =
  'It is not opened, because unpickling can run any code the file holds. Take the safetensors or GGUF version of the ' +
  'model, or convert it with a tool you trust in a sandbox, for example: python3 -c "import torch, ' +
  "safetensors.torch as s; d = torch.load('IN', map_location='cpu', weights_only=True); d = d.get('state_dict', d); " +
  "s.save_file({k: v.clone().contiguous() for k, v in d.items() if hasattr(v, 'shape')}, 'OUT.safetensors')\"";

/** @param head the first bytes as latin1. @returns why the file is refused, or undefined where it is no pickle */
export function pickleReason(source: ByteSource, head: string): string | undefined {
  if (head.startsWith('PK\x03\x04')) return zipReason(source, head);
  if (/^\x80[\x02-\x05]/.test(head) && head[8] !== '{')
    return `this is a Python pickle (an older .pt or .ckpt checkpoint). ${kAdvice}`;
  return undefined;
}

function zipReason(source: ByteSource, head: string): string | undefined {
  const tailBytes = Math.min(source.size, kTailBytes);
  const names = head + source.read(source.size - tailBytes, tailBytes).toString('latin1');
  if (names.includes('constants.pkl') || /\/code\/__torch__/.test(names))
    return `this is a TorchScript archive, as OpenAI publishes CLIP: a program, not only weights. ${kAdvice.replace(
      "torch.load('IN', map_location='cpu', weights_only=True)",
      "torch.jit.load('IN', map_location='cpu').state_dict()",
    )}`;
  if (names.includes('data.pkl'))
    return `this is a PyTorch pickle checkpoint (.ckpt, .pt, .pth or .bin). ${kAdvice}`;
  return undefined;
}
