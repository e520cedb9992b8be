/** Speaks as much of the Hub's protocol as downloads need, over a second server in the place of its CDN, with faults. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export const COMMIT = '0123456789abcdef0123456789abcdef01234567';

export interface ServedFile {
  readonly content: Buffer;
  /** kept in LFS, as everything large is: told by SHA-256 and sent by the CDN */
  readonly isLfs: boolean;
}

/** What one answer does in the place of what it should; undefined: nothing wrong. */
export interface Fault {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  /** sends this many bytes, then breaks the connection */
  readonly breakAfter?: number;
  /** other bytes than the checksum says */
  readonly damaged?: boolean;
  /** the whole, whatever range was asked for */
  readonly ignoresRange?: boolean;
  /** keeps silent from this byte on */
  readonly stallAfter?: number;
}

export interface Asked {
  readonly method: string;
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly server: 'hub' | 'cdn';
}

export class HubServer implements AsyncDisposable {
  readonly asked: Asked[] = [];
  /** for answers that send bytes, in this order */
  readonly faults: Fault[] = [];
  /** what a repository answers to who has no right to it */
  readonly refusals = new Map<string, Fault>();
  readonly #files = new Map<string, ServedFile>();
  readonly #hub: Server;
  readonly #cdn: Server;

  private constructor() {
    this.#hub = createServer((request, response) => this.#answer(request, response));
    this.#cdn = createServer((request, response) => this.#answerCdn(request, response));
  }

  static async open(): Promise<HubServer> {
    const server = new HubServer();
    for (const one of [server.#hub, server.#cdn])
      await new Promise<void>((resolve) => one.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
  }

  /** Bodies asked for. */
  get gets(): Asked[] {
    return this.asked.filter(({ method, url }) => method === 'GET' && !url.startsWith('/api'));
  }

  put(repository: string, file: string, content: Buffer, isLfs = true): void {
    this.#files.set(`${repository}/${file}`, { content, isLfs });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of [this.#hub, this.#cdn]) {
      one.closeAllConnections();
      await new Promise((resolve) => one.close(resolve));
    }
  }

  #note(request: IncomingMessage, server: Asked['server']): void {
    const { range, authorization } = request.headers;
    this.asked.push({ method: request.method!, url: request.url!, range, authorization, server });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    this.#note(request, 'hub');
    const url = decodeURIComponent(request.url!);
    const list = /^\/api\/models\/([^/]+\/[^/]+)\/tree\/main/.exec(url);
    if (list) return this.#list(list[1]!, response);
    const [, repository = '', file = ''] = /^\/([^/]+\/[^/]+)\/resolve\/[^/]+\/(.*)$/.exec(url) ?? [];
    const refused = request.headers.authorization === undefined && this.refusals.get(repository);
    if (refused) return void response.writeHead(refused.status!, refused.headers).end();
    const served = this.#files.get(`${repository}/${file}`);
    if (!served) return void response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end();
    const headers = { 'x-repo-commit': COMMIT, 'accept-ranges': 'bytes' };
    if (!served.isLfs) {
      const { content } = served;
      const etag = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex');
      return this.#send(request, response, content, { ...headers, etag: `"${etag}"` });
    }
    const sha256 = createHash('sha256').update(served.content).digest('hex');
    response.writeHead(302, {
      ...headers,
      'x-linked-etag': `"${sha256}"`,
      'x-linked-size': String(served.content.length),
      location: `http://127.0.0.1:${(this.#cdn.address() as AddressInfo).port}/${sha256}`,
    });
    response.end();
  }

  #answerCdn(request: IncomingMessage, response: ServerResponse): void {
    this.#note(request, 'cdn');
    const served = [...this.#files.values()].find(
      ({ content }) => createHash('sha256').update(content).digest('hex') === request.url!.slice(1),
    );
    this.#send(request, response, served!.content, { etag: '"of the CDN"' });
  }

  #list(repository: string, response: ServerResponse): void {
    const files = [...this.#files].filter(([name]) => name.startsWith(`${repository}/`));
    if (files.length === 0) return void response.writeHead(401, { 'x-error-code': 'RepoNotFound' }).end();
    const body = files.map(([name, { content }]) => ({
      type: 'file',
      path: name.slice(repository.length + 1),
      size: content.length,
      oid: COMMIT,
    }));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  #send(
    request: IncomingMessage,
    response: ServerResponse,
    content: Buffer,
    headers: Record<string, string>,
  ): void {
    if (request.method === 'HEAD')
      return void response.writeHead(200, { ...headers, 'content-length': String(content.length) }).end();
    const fault = this.faults.shift() ?? {};
    if (fault.status !== undefined) return void response.writeHead(fault.status, fault.headers).end();
    const [, from] = /^bytes=(\d+)-/.exec(fault.ignoresRange ? '' : (request.headers.range ?? '')) ?? [];
    const start = Number(from ?? 0);
    const body = Buffer.from(content.subarray(start));
    if (fault.damaged) body[0]! ^= 1;
    const range = `bytes ${start}-${content.length - 1}/${content.length}`;
    response.writeHead(from === undefined ? 200 : 206, {
      ...headers,
      'content-length': String(body.length),
      ...(from !== undefined && { 'content-range': range }),
    });
    const end = fault.breakAfter ?? fault.stallAfter;
    if (end === undefined) return void response.end(body);
    response.write(body.subarray(0, end), () => {
      if (fault.breakAfter !== undefined) setTimeout(() => response.destroy(), 30); // after the bytes have left
    });
  }
}
