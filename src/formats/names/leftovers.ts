/** Tensors that files carry and no network here reads: each with the reason, so that none is skipped silently. */

interface LeftoverRule {
  readonly reason: string;
  /** on the whole name in the file */
  readonly pattern: RegExp;
}

const kUnknownNetwork = 'a network this file holds only in part, or of a kind not known here';

const kRules: readonly LeftoverRule[] = [
  { reason: 'position ids: a constant 0, 1, 2, …', pattern: /(^|\.)position_ids$/ },
  { reason: 'logit scale: only for comparing pictures with texts', pattern: /(^|\.)logit_(scale|bias)$/ },
  { reason: 'attention mask: a constant', pattern: /(^|\.)attn_mask$/ },
  {
    reason: 'CLIP vision tower',
    pattern:
      /(^|\.)(visual\.|vision_model\.|visual_projection\.|input_resolution$|context_length$|vocab_size$)/,
  },
  {
    reason: 'T5 decoder',
    pattern:
      /(^|\.)(decoder\.(block|final_layer_norm|embed_tokens)\.|lm_head\.|dec\.(blk|output_norm)\.)|(^|transformer\.)output\.weight$/,
  },
  {
    reason: 'second copy of the tied T5 embedding',
    pattern: /(^|[./])(shared|encoder\.embed_tokens)\.weight$/,
  },
  { reason: 'vocabulary stored as a tensor', pattern: /(^|\.)spiece_model$/ },
  { reason: 'FP8 marker', pattern: /(^|\.)(scaled_fp8|comfy_quant)$/ },
  {
    reason: 'FP8 input scales: activations stay in full precision here',
    pattern: /\.(scale_input|input_scale)$/,
  },
  {
    reason: 'schedule and training buffers',
    pattern:
      /^(betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_alphas_cumprod|posterior_\w+|lvlb_weights|logvar|model_ema\..*|denoiser\..*|embedding_manager\..*|ztsnr|v_pred|edm_\w+(\.\w+)?)$/,
  },
  { reason: 'training loss of a VAE', pattern: /(^|\.)loss\.(discriminator|perceptual_loss|logvar)/ },
  {
    reason: kUnknownNetwork,
    pattern:
      /^(model\.diffusion_model|first_stage_model|vae|control_model|cond_stage_model|conditioner|text_encoders|unet|transformer|safety_checker)[./]/,
  },
];

/** Why a tensor is not read; undefined where nothing explains it. */
export function leftoverReason(name: string): string | undefined {
  return kRules.find(({ pattern }) => pattern.test(name))?.reason;
}

/** Whether a tensor among those of a network that is known here has a reason of its own not to be read. */
export function isExplained(name: string): boolean {
  const reason = leftoverReason(name);
  return reason !== undefined && reason !== kUnknownNetwork;
}
