/** What packages beside this one need to check arguments and report errors as it does. Not for users. */
export { checkInteger, checkNumber, checkOneOf, checkOptions, describe } from "./check.js";
export { isPcclErrorCode, PcclError, pcclError } from "./errors.js";
