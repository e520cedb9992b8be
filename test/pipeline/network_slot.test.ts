/** A network whose loading is cancelled half way is not taken for a loaded one. */
import { expect, test } from 'vitest';
import { decodeStages } from '../../src/diffusion/vae.js';
import { vaeDecoder, type VaeDecoder } from '../../src/diffusion/vae_model.js';
import { openModel, selectPart, type VaePart } from '../../src/formats/index.js';
import { NetworkSlot } from '../../src/pipeline/network_slot.js';
import { shippedModel } from '../../src/pipeline/shipped_model.js';
import { Device } from '../../src/runtime/device.js';
import { Ops } from '../../src/runtime/ops.js';
import { normal } from '../support/reference.js';

const part = selectPart(openModel(shippedModel().vae), { slot: 'vae' }) as VaePart;
const newSlot = (device: Device) =>
  new NetworkSlot(device, part, (weights) => vaeDecoder(weights, part.config));

async function decode(device: Device, slot: NetworkSlot<VaeDecoder>): Promise<Float32Array> {
  const size = { batch: 1, height: 4, width: 4 };
  return await device.run(async () => {
    const vae = await slot.get();
    using z = device.from(normal(16 * 16, 3), [16, 16]);
    const stages = decodeStages(new Ops(device, 'fp32'), vae, z, size);
    for (;;) {
      const { done, value } = stages.next();
      if (!done) continue;
      using image = value;
      return await image.read();
    }
  });
}

/** A device of its own, so that no memory still holds what an earlier load has put there. */
async function onDevice<T>(use: (device: Device, slot: NetworkSlot<VaeDecoder>) => Promise<T>): Promise<T> {
  await using device = Device.open('cpu', { threads: 1 });
  const slot = newSlot(device);
  try {
    return await use(device, slot);
  } finally {
    slot.release();
  }
}

test('cancelled at any moment of its loading, it is loaded anew', async () => {
  const expected = await onDevice(decode);
  for (let i = 0; i < 10; i++)
    await onDevice(async (device, slot) => {
      const controller = new AbortController();
      const job = device.run(async () => {
        const loading = slot.get();
        if (i % 2) await new Promise((resume) => setImmediate(resume));
        controller.abort();
        await loading;
        await device.native.flush();
      }, controller.signal);
      await expect(job).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
      expect(await decode(device, slot), `round ${i}`).toEqual(expected);
    });
});
