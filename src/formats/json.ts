/**
 * A strict JSON reader for headers that come from strangers: objects become Maps, so `__proto__` is a name like any
 * other; duplicate keys, lone surrogates and deep nesting are errors, where JSON.parse would keep quiet.
 */
export type JsonValue = string | number | boolean | null | JsonValue[] | JsonObject;
export type JsonObject = Map<string, JsonValue>;

export class JsonError extends Error {}

const kMaxDepth = 64;
const kNumber = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const kSpace = /[ \t\n\r]*/y;

export function parseJson(text: string): JsonValue {
  const reader = new JsonReader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

class JsonReader {
  private at = 0;
  private readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  value(depth: number): JsonValue {
    if (depth > kMaxDepth) this.fail(`nested more than ${kMaxDepth} deep`);
    this.space();
    switch (this.text[this.at]) {
      case '{':
        return this.object(depth);
      case '[':
        return this.array(depth);
      case '"':
        return this.string();
      case 't':
        return this.word('true', true);
      case 'f':
        return this.word('false', false);
      case 'n':
        return this.word('null', null);
      default:
        return this.number();
    }
  }

  end(): void {
    this.space();
    if (this.at < this.text.length) this.fail('text after the end');
  }

  private object(depth: number): JsonObject {
    const object: JsonObject = new Map();
    this.at++;
    if (this.skip('}')) return object;
    do {
      this.space();
      const key = this.string();
      if (object.has(key)) this.fail(`the key ${JSON.stringify(key)} occurs twice`);
      if (!this.skip(':')) this.fail('expected ":"');
      object.set(key, this.value(depth + 1));
    } while (this.skip(','));
    if (!this.skip('}')) this.fail('expected "," or "}"');
    return object;
  }

  private array(depth: number): JsonValue[] {
    const array: JsonValue[] = [];
    this.at++;
    if (this.skip(']')) return array;
    do array.push(this.value(depth + 1));
    while (this.skip(','));
    if (!this.skip(']')) this.fail('expected "," or "]"');
    return array;
  }

  private string(): string {
    const { text, at } = this;
    if (text[at] !== '"') this.fail('expected a string');
    let end = text.indexOf('"', at + 1);
    while (end > 0 && this.escaped(end)) end = text.indexOf('"', end + 1);
    if (end < 0) this.fail('a string without an end');
    this.at = end + 1;
    let value = text.slice(at + 1, end);
    if (/[\\\u0000-\u001f]/.test(value)) value = this.unescape(text.slice(at, end + 1));
    if (/\p{Surrogate}/u.test(value)) this.fail('a string that is not valid Unicode');
    return value;
  }

  /** Whether an odd number of backslashes stands before `end`. */
  private escaped(end: number): boolean {
    let slashes = 0;
    while (this.text[end - 1 - slashes] === '\\') slashes++;
    return slashes % 2 === 1;
  }

  private unescape(quoted: string): string {
    try {
      return JSON.parse(quoted) as string;
    } catch {
      return this.fail('a string with a wrong escape or a control character');
    }
  }

  private number(): number {
    kNumber.lastIndex = this.at;
    const match = kNumber.exec(this.text);
    if (match === null) return this.fail('expected a value');
    this.at = kNumber.lastIndex;
    return Number(match[0]);
  }

  private word<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) this.fail('expected a value');
    this.at += word.length;
    return value;
  }

  private skip(char: string): boolean {
    this.space();
    if (this.text[this.at] !== char) return false;
    this.at++;
    return true;
  }

  private space(): void {
    const code = this.text.charCodeAt(this.at);
    if (code > 32) return; // the usual case
    kSpace.lastIndex = this.at;
    kSpace.exec(this.text);
    this.at = kSpace.lastIndex;
  }

  private fail(what: string): never {
    throw new JsonError(`${what} at character ${this.at}`);
  }
}
