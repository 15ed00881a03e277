#include "pccl/engine.h"

namespace pccl {

// A test of @pccl/core compares these with its catalogue.
const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "ERR_PCCL_INVALID_ARGUMENT";
    case ErrorCode::not_installed:
      return "ERR_PCCL_NOT_INSTALLED";
    case ErrorCode::buffer_in_use:
      return "ERR_PCCL_BUFFER_IN_USE";
    case ErrorCode::tag_in_use:
      return "ERR_PCCL_TAG_IN_USE";
    case ErrorCode::too_many_ops:
      return "ERR_PCCL_TOO_MANY_OPS";
    case ErrorCode::descriptor_mismatch:
      return "ERR_PCCL_DESCRIPTOR_MISMATCH";
    case ErrorCode::call_mismatch:
      return "ERR_PCCL_CALL_MISMATCH";
    case ErrorCode::peer_lost:
      return "ERR_PCCL_PEER_LOST";
    case ErrorCode::cancelled:
      return "ERR_PCCL_CANCELLED";
    case ErrorCode::closed:
      return "ERR_PCCL_CLOSED";
    case ErrorCode::state_fetch_failed:
      return "ERR_PCCL_STATE_FETCH_FAILED";
    case ErrorCode::internal:
      return "ERR_PCCL_INTERNAL";
    case ErrorCode::io:
      return "ERR_PCCL_LISTEN_FAILED";
    case ErrorCode::out_of_memory:
      return "ERR_PCCL_OUT_OF_MEMORY";
    case ErrorCode::non_finite_input:
      return "ERR_PCCL_NON_FINITE_INPUT";
  }
  return "ERR_PCCL_INTERNAL";
}

}  // namespace pccl
