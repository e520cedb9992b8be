/** Values of options that are lists, separated by commas. */
import { InvalidArgumentError } from 'commander';

export const names = (value: string): string[] => value.split(',').filter(Boolean);

/** @throws InvalidArgumentError for anything but positive integers */
export function numbers(value: string): number[] {
  const parsed = names(value).map(Number);
  if (parsed.length === 0 || parsed.some((n) => !Number.isInteger(n) || n < 1))
    throw new InvalidArgumentError('expected positive integers separated by commas');
  return parsed;
}

/** A parser for names out of these. */
export function namesOf<T extends string>(choices: readonly T[]) {
  return (value: string): T[] => {
    const given = names(value);
    const unknown = given.find((name) => !choices.includes(name as T));
    if (given.length === 0 || unknown !== undefined)
      throw new InvalidArgumentError(`expected some of ${choices.join(', ')}, separated by commas`);
    return given as T[];
  };
}
