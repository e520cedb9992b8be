// Where A1111 and ComfyUI break a prompt that is longer than one chunk. Both fill chunks of `capacity` tokens.

export interface WeightedToken {
  readonly id: number;
  readonly piece: string;
  readonly weight: number;
}

/** A group of this many tokens or more may be split across chunks by ComfyUI; a smaller one moves on whole. */
const COMFYUI_LARGE_GROUP = 8;

/**
 * A full chunk ends at its last comma if that is at most `backtrack` tokens back, so that phrases stay together;
 * what follows the comma moves on. A null group (BREAK) ends the chunk there, even an empty one.
 */
export function packA1111(
  groups: readonly (readonly WeightedToken[] | null)[],
  capacity: number,
  commaId: number | null,
  backtrack: number,
): WeightedToken[][] {
  const chunks: WeightedToken[][] = [];
  let chunk: WeightedToken[] = [];
  let lastComma = -1;
  const next = (moved: WeightedToken[] = []) => {
    chunks.push(chunk);
    chunk = moved;
    lastComma = -1;
  };
  for (const group of groups) {
    if (group === null) next();
    for (const token of group ?? []) {
      const full = chunk.length === capacity;
      if (token.id === commaId) lastComma = chunk.length;
      else if (full && backtrack > 0 && lastComma >= 0 && chunk.length - lastComma <= backtrack)
        next(chunk.splice(lastComma + 1));
      if (chunk.length === capacity) next();
      chunk.push(token);
    }
  }
  if (chunk.length > 0 || chunks.length === 0) next();
  return chunks;
}

/** Groups are the weighted texts of the prompt, in order. A1111's BREAK does not exist here. */
export function packComfyui(
  groups: readonly (readonly WeightedToken[] | null)[],
  capacity: number,
): WeightedToken[][] {
  const chunks: WeightedToken[][] = [];
  let chunk: WeightedToken[] = [];
  for (const group of groups) {
    if (group === null) continue;
    const splits = group.length >= COMFYUI_LARGE_GROUP || group.length > capacity;
    for (let at = 0; at < group.length;) {
      const room = capacity - chunk.length;
      const fits = group.length - at <= room;
      const end = fits ? group.length : splits ? at + room : at;
      for (; at < end; at++) chunk.push(group[at]!);
      if (fits) continue;
      chunks.push(chunk);
      chunk = [];
    }
  }
  chunks.push(chunk);
  return chunks;
}
