/** SDXL against golden/diffusion/e2e. A file of its own, as the simulated GPU takes minutes for it. */
import { goldenUnet } from '../../support/golden_sampling.js';

goldenUnet('sdxl');
