/** Where to run: a device that several encoders and pipelines share, or one of their own. */
import { Device, type DeviceName } from '../runtime/device.js';

export interface DeviceChoice {
  /**
   * A device to share, which its owner closes; or the name of one that is opened, and closed when this is disposed.
   * Default: KOTOBA_DEVICE, else `auto`: the first GPU, or the CPU where none can be used.
   */
  readonly device?: Device | DeviceName | undefined;
  /** CPU threads, if the device is opened here. */
  readonly threads?: number | undefined;
  /** Bytes of a GPU's memory that it may take, if the device is opened here; default KOTOBA_VRAM, else nine tenths. */
  readonly vram?: number | undefined;
}

/** @throws KotobaError ERR_DEVICE, ERR_ARGUMENT */
export function openDevice({ device, threads, vram }: DeviceChoice): Device {
  return device instanceof Device ? device : Device.open(device, { threads, vram });
}
