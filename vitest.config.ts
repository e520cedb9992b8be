import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 60_000,
    // The native thread pool takes every core by itself.
    maxWorkers: 2,
    env: {
      KOTOBA_THREADS: process.env['KOTOBA_THREADS'] ?? '2',
      // Tests name the device they are about; what names none runs where every machine can.
      KOTOBA_DEVICE: process.env['KOTOBA_DEVICE'] ?? 'cpu',
    },
  },
});
