/**
 * The Hugging Face Hub: files by name, into the cache that other programs share.
 *
 *   const access = hubAccess(process.env);
 *   const { repository, files } = await wantedFiles(access, 'flan-t5-xxl:q4_k');
 *   for (const file of files) console.log((await pullFile(access, repository, file)).path);
 *   cachedName(access.cache, 'flan-t5-xxl:q4_k');    // the path, once it is there; asks nobody
 */
export { cacheFolder, hubAccess, type Env, type HubAccess } from './access.js';
export { cachedFile } from './cache.js';
export { catalogue, catalogueEntry, type CatalogueEntry } from './catalogue.js';
export { pullFile, type PullOptions, type Pulled } from './pull_file.js';
export { cachedName, namedOffline, wantedFiles, type Wanted } from './wanted.js';
