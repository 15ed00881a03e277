/** What the command line says about itself. */

export const USAGE = `Usage: pccl <command> [options]

Commands:
  bench         Measure the collectives, checked first, on this machine or between several
  coordinator   Run the coordinator that peers connect to
  simulate      Run the protocol through whole worlds of faults in virtual time
  stress        Disturb real peers in every way, and check that nothing hangs or diverges

Options:
  -h, --help    Show this help; after a command: the command's help
  --version     Show the version

Exit codes: 0 success, 1 failure at run time, 2 wrong usage, 130 ended by a signal, where that is no success
`;

/** A command line that makes no sense. */
export class UsageError extends Error {}
