/* CUDA's runtime (libcudart) and the little of its driver (libcuda) that PyTorch asks for, without a GPU.
 *
 * Loaded before the real ones (LD_PRELOAD), it lets PyTorch's own CUDA code run on any machine: checks, streams, events, allocators,
 * launches. Memory of a device is memory of the host, so copies are true; a kernel's launch is checked and counted, and
 * nothing is computed. What can't be pretended answers cudaErrorNotSupported (build.py adds such an answer for each other name).
 *
 * PRETENDED_GPUS: how many there are (1). PRETENDED_BYTES: the memory of each (80 GB). */
#define _GNU_SOURCE
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* The header renames some functions to versions of them; the libraries ask for the plain names. */
#undef cudaGetDeviceProperties
#undef cudaStreamGetCaptureInfo

#define EXPORT __attribute__((visibility("default")))
#define MOST_GPUS 8

/* ---- What a test wants to know ---- */

EXPORT long pretended_launches, pretended_refused;
/* Times that the host could not go on before the device had finished: synchronisations, copies that are not asynchronous
 * or whose host memory is not pinned. */
EXPORT long pretended_waits;
/* CUDA takes some 500 MB of a device as soon as a process uses it for anything. */
EXPORT int pretended_touched[MOST_GPUS];
EXPORT long pretended_used[MOST_GPUS]; /* bytes */

static __thread int current_device;
static __thread cudaError_t last_error;

static void add(long *counter) { __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED); }

static cudaError_t refuse(cudaError_t error) {
    add(&pretended_refused);
    return last_error = error;
}

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static int num_gpus(void) { return (int)setting("PRETENDED_GPUS", 1); }

static void touch(int device) { pretended_touched[device] = 1; }

/* ---- Memory: a range of addresses for each device and one for pinned memory, so that an address says whose it is ---- */

#define RANGE (1ul << 40)
#define PAGE 4096ul
#define PINNED MOST_GPUS
#define MOST_FILLED (4ul << 20) /* of a fresh block, with NaN: who reads before writing shall notice */

static char *ranges;
static size_t next_free[MOST_GPUS + 1];
static pthread_mutex_t memory_lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void reserve(void) {
    ranges = mmap(NULL, (MOST_GPUS + 1) * RANGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ranges == MAP_FAILED || num_gpus() > MOST_GPUS) {
        fprintf(stderr, "pretended CUDA: no addresses, or more than %d GPUs\n", MOST_GPUS);
        abort();
    }
}

/* A device, PINNED, or -1 where the address is none of ours. */
static int place_of(const void *address) {
    if ((const char *)address < ranges || (const char *)address >= ranges + (MOST_GPUS + 1) * RANGE) return -1;
    return (int)(((const char *)address - ranges) / RANGE);
}

/* A block lies behind a page that keeps its size. Addresses are never given twice: a late use of freed memory crashes. */
static cudaError_t take(void **address, size_t size, int place) {
    size_t whole = PAGE + (size + PAGE - 1) / PAGE * PAGE;
    touch(current_device);
    pthread_mutex_lock(&memory_lock);
    int fits = next_free[place] + whole <= RANGE;
    if (place != PINNED) fits &= pretended_used[place] + (long)size <= setting("PRETENDED_BYTES", 80000000000);
    char *start = ranges + place * RANGE + next_free[place];
    if (fits && mprotect(start, whole, PROT_READ | PROT_WRITE) == 0) {
        next_free[place] += whole;
        if (place != PINNED) pretended_used[place] += size;
    } else {
        fits = 0;
    }
    pthread_mutex_unlock(&memory_lock);
    *address = fits ? start + PAGE : NULL;
    if (!fits) return refuse(cudaErrorMemoryAllocation);
    *(size_t *)start = size;
    if (place != PINNED) memset(*address, 0xFF, size < MOST_FILLED ? size : MOST_FILLED);
    return cudaSuccess;
}

static cudaError_t give(void *address) {
    int place = place_of(address);
    if (!address) return cudaSuccess;
    if (place < 0) return refuse(cudaErrorInvalidValue);
    char *start = (char *)address - PAGE;
    size_t size = *(size_t *)start;
    pthread_mutex_lock(&memory_lock);
    if (place != PINNED) pretended_used[place] -= size;
    pthread_mutex_unlock(&memory_lock);
    mmap(start, PAGE + (size + PAGE - 1) / PAGE * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return cudaSuccess;
}

EXPORT cudaError_t cudaMalloc(void **address, size_t size) { return take(address, size, current_device); }
EXPORT cudaError_t cudaFree(void *address) { return give(address); }
EXPORT cudaError_t cudaHostAlloc(void **address, size_t size, unsigned flags) { return take(address, size, PINNED); }
EXPORT cudaError_t cudaFreeHost(void *address) { return give(address); }

EXPORT cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    touch(current_device);
    *total = (size_t)setting("PRETENDED_BYTES", 80000000000);
    *free_bytes = *total - pretended_used[current_device];
    return cudaSuccess;
}

EXPORT cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    int place = place_of(address);
    memset(found, 0, sizeof *found);
    found->type = place < 0 ? cudaMemoryTypeUnregistered : place == PINNED ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    found->device = place < 0 || place == PINNED ? 0 : place;
    if (place >= 0) found->hostPointer = found->devicePointer = (void *)address;
    return cudaSuccess;
}

/* ---- Streams and events. They belong to the device that was current when they were made ---- */

struct handle {
    int device;
    double recorded_at; /* milliseconds; of an event */
};

static void *new_handle(void) {
    struct handle *made = calloc(1, sizeof *made);
    made->device = current_device;
    touch(current_device);
    return made;
}

/* Stream 0 is the current device's own. */
static int device_of(cudaStream_t stream) { return stream ? ((struct handle *)stream)->device : current_device; }

static cudaError_t destroy(void *handle) {
    free(handle);
    return cudaSuccess;
}

static cudaError_t wait_for_device(void) {
    add(&pretended_waits);
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamCreate(cudaStream_t *made) { return *made = new_handle(), cudaSuccess; }
EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned flags) { return cudaStreamCreate(made); }
EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t *made, unsigned flags, int priority) { return cudaStreamCreate(made); }
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t stream) { return destroy(stream); }
EXPORT cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaSuccess; }
EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { return *priority = 0, cudaSuccess; }
EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) { return cudaSuccess; }
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return wait_for_device(); }
EXPORT cudaError_t cudaDeviceSynchronize(void) { return touch(current_device), wait_for_device(); }

EXPORT cudaError_t cudaEventCreate(cudaEvent_t *made) { return *made = new_handle(), cudaSuccess; }
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned flags) { return cudaEventCreate(made); }
EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event); }
EXPORT cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaSuccess; }
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t event) { return wait_for_device(); }

EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    struct timespec now;
    if (((struct handle *)event)->device != device_of(stream)) return refuse(cudaErrorInvalidResourceHandle);
    clock_gettime(CLOCK_MONOTONIC, &now);
    ((struct handle *)event)->recorded_at = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return cudaEventRecord(event, stream);
}

EXPORT cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    *milliseconds = (float)(((struct handle *)to)->recorded_at - ((struct handle *)from)->recorded_at);
    return cudaSuccess;
}

EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void *data) { return call(data), cudaSuccess; }

/* CUDA graphs are not recorded here. */
EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                            cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                            size_t *num_nodes) {
    return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return cudaSuccess; }

/* ---- Copies ---- */

static cudaError_t copy(void *to, const void *from, size_t size, int is_asynchronous) {
    int is_pageable = place_of(to) < 0 || place_of(from) < 0;
    if (size && (!is_asynchronous || is_pageable)) add(&pretended_waits);
    touch(current_device);
    memmove(to, from, size);
    return cudaSuccess;
}

static cudaError_t fill(void *to, int value, size_t size) {
    touch(current_device);
    memset(to, value, size);
    return cudaSuccess;
}

EXPORT cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) { return copy(to, from, size, 0); }
EXPORT cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return copy(to, from, size, 1);
}
EXPORT cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t size, cudaStream_t stream) {
    return copy(to, from, size, 1);
}
EXPORT cudaError_t cudaMemset(void *to, int value, size_t size) { return fill(to, value, size); }
EXPORT cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) { return fill(to, value, size); }

/* ---- Kernels: what the chip would refuse is refused ---- */

#define SHARED_BYTES 49152ul /* of a block, for a kernel that has not asked for more */
#define MOST_ASKING 256

static struct { const void *kernel; size_t bytes; } asked[MOST_ASKING];

static size_t shared_bytes_of(const void *kernel) {
    for (int i = 0; i < MOST_ASKING && asked[i].kernel; i++)
        if (asked[i].kernel == kernel) return asked[i].bytes;
    return SHARED_BYTES;
}

EXPORT cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute what, int value) {
    if (what != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    pthread_mutex_lock(&memory_lock);
    int i = 0;
    while (i < MOST_ASKING - 1 && asked[i].kernel && asked[i].kernel != kernel) i++;
    asked[i].kernel = kernel;
    asked[i].bytes = value;
    pthread_mutex_unlock(&memory_lock);
    return cudaSuccess;
}

static cudaError_t launch(const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    size_t threads = (size_t)block.x * block.y * block.z;
    add(&pretended_launches);
    touch(current_device);
    if (device_of(stream) != current_device) return refuse(cudaErrorInvalidResourceHandle);
    if (!threads || threads > 1024 || block.z > 64) return refuse(cudaErrorInvalidConfiguration);
    if (!grid.x || grid.x > 2147483647u || !grid.y || grid.y > 65535 || !grid.z || grid.z > 65535) return refuse(cudaErrorInvalidConfiguration);
    if (shared > shared_bytes_of(kernel)) return refuse(cudaErrorInvalidValue);
    return cudaSuccess;
}

EXPORT cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return launch(kernel, grid, block, shared, stream);
}
EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) {
    return launch(kernel, grid, block, shared, stream);
}
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *kernel, void **arguments) {
    return launch(kernel, how->gridDim, how->blockDim, how->dynamicSmemBytes, how->stream);
}

/* What nvcc writes into programs: it leaves a launch's configuration here for a moment, and registers the kernels. */
static __thread struct { dim3 grid, block; size_t shared; void *stream; } configuration;

EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) {
    configuration.grid = grid, configuration.block = block, configuration.shared = shared, configuration.stream = stream;
    return 0;
}
EXPORT cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = configuration.grid, *block = configuration.block, *shared = configuration.shared;
    *(void **)stream = configuration.stream;
    return cudaSuccess;
}
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) { return *kernel = (cudaKernel_t)function, cudaSuccess; }
EXPORT void **__cudaRegisterFatBinary(void *binary) { return calloc(1, sizeof(void *)); }
EXPORT void __cudaRegisterFatBinaryEnd(void **binary) {}
EXPORT void __cudaUnregisterFatBinary(void **binary) {}
EXPORT void __cudaRegisterFunction(void) {}
EXPORT void __cudaRegisterVar(void) {}
EXPORT char __cudaInitModule(void **binary) { return 1; }

EXPORT cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *kernel) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024;
    found->numRegs = 32;
    found->ptxVersion = found->binaryVersion = 90;
    return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *kernel, int threads, size_t shared,
                                                                          unsigned flags) {
    return *blocks = 2, cudaSuccess;
}

/* ---- Devices: each an H100 ---- */

static int attribute(int which) {
    switch (which) {
        case cudaDevAttrComputeCapabilityMajor: return 9;
        case cudaDevAttrComputeCapabilityMinor: return 0;
        case cudaDevAttrMultiProcessorCount: return 132;
        case cudaDevAttrWarpSize: return 32;
        case cudaDevAttrMaxThreadsPerBlock: return 1024;
        case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
        case cudaDevAttrMaxSharedMemoryPerBlock: return SHARED_BYTES;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: return 232448;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return 233472;
        case cudaDevAttrMaxRegistersPerBlock: return 65536;
        case cudaDevAttrMaxRegistersPerMultiprocessor: return 65536;
        case cudaDevAttrMaxBlockDimX: return 1024;
        case cudaDevAttrMaxBlockDimY: return 1024;
        case cudaDevAttrMaxBlockDimZ: return 64;
        case cudaDevAttrMaxGridDimX: return 2147483647;
        case cudaDevAttrMaxGridDimY: return 65535;
        case cudaDevAttrMaxGridDimZ: return 65535;
        case cudaDevAttrL2CacheSize: return 50 << 20;
        case cudaDevAttrUnifiedAddressing: return 1;
        default: return 0;
    }
}

EXPORT cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    memset(found, 0, sizeof *found);
    snprintf(found->name, sizeof found->name, "Pretended H100");
    found->uuid.bytes[0] = (char)(device + 1);
    found->totalGlobalMem = (size_t)setting("PRETENDED_BYTES", 80000000000);
    found->major = 9;
    found->multiProcessorCount = 132;
    found->warpSize = 32;
    found->maxThreadsPerBlock = 1024;
    found->maxThreadsPerMultiProcessor = 2048;
    found->maxBlocksPerMultiProcessor = 32;
    found->maxThreadsDim[0] = found->maxThreadsDim[1] = 1024;
    found->maxThreadsDim[2] = 64;
    found->maxGridSize[0] = 2147483647;
    found->maxGridSize[1] = found->maxGridSize[2] = 65535;
    found->sharedMemPerBlock = SHARED_BYTES;
    found->sharedMemPerBlockOptin = 232448;
    found->sharedMemPerMultiprocessor = 233472;
    found->regsPerBlock = found->regsPerMultiprocessor = 65536;
    found->l2CacheSize = 50 << 20;
    found->totalConstMem = 65536;
    found->textureAlignment = 512;
    found->concurrentKernels = found->unifiedAddressing = 1;
    return cudaSuccess;
}

EXPORT cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= num_gpus()) return refuse(cudaErrorInvalidDevice);
    current_device = device;
    touch(device); /* since CUDA 12 this call alone makes the context */
    return cudaSuccess;
}
EXPORT cudaError_t cudaGetDevice(int *device) { return *device = current_device, cudaSuccess; }
EXPORT cudaError_t cudaGetDeviceCount(int *count) { return *count = num_gpus(), cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) { return *value = attribute(which), cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *most) { return *least = 0, *most = -5, cudaSuccess; }
EXPORT cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int other) { return *can = 0, cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    snprintf(text, length, "0000:%02x:00.0", device);
    return cudaSuccess;
}
EXPORT cudaError_t cudaDriverGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }

EXPORT cudaError_t cudaPeekAtLastError(void) { return last_error; }
EXPORT cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
EXPORT const char *cudaGetErrorName(cudaError_t error) { return "cudaErrorPretended"; }
EXPORT const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "no error";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorInvalidResourceHandle: return "invalid resource handle";
        default: return "operation not supported";
    }
}

/* ---- The driver ---- */

EXPORT int pretended_not_supported(const char *name) {
    if (getenv("PRETENDED_TELL")) fprintf(stderr, "pretended CUDA: no %s\n", name);
    return refuse(cudaErrorNotSupported);
}
static int some_function(void) { return pretended_not_supported("function of the driver"); }
static int do_nothing(void) { return CUDA_SUCCESS; }

EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                                    enum cudaDriverEntryPointQueryResult *result) {
    void *found = dlsym(RTLD_DEFAULT, name);
    int is_logging = strncmp(name, "cuLogs", 6) == 0; /* older headers don't know it */
    *function = found ? found : is_logging ? (void *)do_nothing : (void *)some_function;
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
EXPORT CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
EXPORT CUresult cuDriverGetVersion(int *version) { return *version = CUDART_VERSION, CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGetCount(int *count) { return *count = num_gpus(), CUDA_SUCCESS; }
EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *is_active) {
    *flags = 0;
    *is_active = pretended_touched[device];
    return CUDA_SUCCESS;
}
EXPORT CUresult cuGetErrorString(CUresult error, const char **text) { return *text = "operation not supported", CUDA_SUCCESS; }
EXPORT CUresult cuGetErrorName(CUresult error, const char **text) { return *text = "CUDA_ERROR_PRETENDED", CUDA_SUCCESS; }
