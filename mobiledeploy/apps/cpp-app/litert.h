// The part of LiteRT's C API that the app uses; no package ships its headers.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

typedef int LiteRtStatus;  // 0 is success
typedef struct LiteRtObject *LiteRtHandle;

struct LiteRtLayout {
  unsigned int rank : 7;
  bool has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};

struct LiteRtRankedTensorType {
  int element_type;
  LiteRtLayout layout;
};

LiteRtStatus LiteRtCreateEnvironment(int options, const void *values, LiteRtHandle *environment);
LiteRtStatus LiteRtCreateModelFromFile(LiteRtHandle environment, const char *path,
                                       LiteRtHandle *model);
LiteRtStatus LiteRtCreateOptions(LiteRtHandle *options);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtHandle options, int accelerators);
LiteRtStatus LiteRtCreateCompiledModel(LiteRtHandle environment, LiteRtHandle model,
                                       LiteRtHandle options, LiteRtHandle *compiled);
LiteRtStatus LiteRtGetModelSignature(LiteRtHandle model, size_t index, LiteRtHandle *signature);
LiteRtStatus LiteRtGetNumSignatureOutputs(LiteRtHandle signature, size_t *count);
LiteRtStatus LiteRtGetSignatureInputTensorByIndex(LiteRtHandle signature, size_t index,
                                                  LiteRtHandle *tensor);
LiteRtStatus LiteRtGetSignatureOutputTensorByIndex(LiteRtHandle signature, size_t index,
                                                   LiteRtHandle *tensor);
LiteRtStatus LiteRtGetTensorName(LiteRtHandle tensor, const char **name);
LiteRtStatus LiteRtGetRankedTensorType(LiteRtHandle tensor, LiteRtRankedTensorType *type);
LiteRtStatus LiteRtGetCompiledModelInputBufferRequirements(LiteRtHandle compiled, size_t signature,
                                                           size_t index, LiteRtHandle *needs);
LiteRtStatus LiteRtGetCompiledModelOutputBufferRequirements(LiteRtHandle compiled,
                                                            size_t signature, size_t index,
                                                            LiteRtHandle *needs);
LiteRtStatus LiteRtCreateManagedTensorBufferFromRequirements(LiteRtHandle environment,
                                                             const LiteRtRankedTensorType *type,
                                                             LiteRtHandle needs,
                                                             LiteRtHandle *buffer);
LiteRtStatus LiteRtGetTensorBufferPackedSize(LiteRtHandle buffer, size_t *bytes);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtHandle buffer, void **place, int mode);
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtHandle buffer);
LiteRtStatus LiteRtRunCompiledModel(LiteRtHandle compiled, size_t signature, size_t inputs,
                                    LiteRtHandle *input, size_t outputs, LiteRtHandle *output);
}
