// Runs a target on files without libFuzzer, so that any compiler with the sanitizers can be used.
#include <cstdint>
#include <cstdio>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int count, char** paths) {
    for (int k = 1; k < count; ++k) {
        std::vector<uint8_t> data(1 << 20);
        FILE* file = fopen(paths[k], "rb");
        if (file == nullptr) return 1;
        data.resize(fread(data.data(), 1, data.size(), file));
        fclose(file);
        LLVMFuzzerTestOneInput(data.data(), data.size());
    }
    printf("%d inputs\n", count - 1);
}
