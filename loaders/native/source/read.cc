// Reads samples and checks them against their checksums.
#include <cerrno>
#include <ctime>
#include <unistd.h>

#include "api.h"
#include "common.h"
#include "threads.h"

namespace {

constexpr int64_t TAR_BLOCK = 512, CRC_BYTES = 4;

uint32_t load32(const uint8_t* data) {  // little-endian
    return data[0] | data[1] << 8 | data[2] << 16 | static_cast<uint32_t>(data[3]) << 24;
}

RefitCode read_bytes(RefitRead* read) {
    for (int64_t got = 0; got < read->length;) {
        const ssize_t more = pread(read->descriptor, read->data + got,
                                   static_cast<size_t>(read->length - got), read->offset + got);
        if (more < 0 && errno == EINTR) continue;
        if (more < 0) {
            read->detail = errno;
            return REFIT_READ_FAILED;
        }
        if (more == 0) {
            read->detail = got;
            return REFIT_CUT_SHORT;
        }
        got += more;
    }
    return REFIT_OK;
}

RefitCode check(const RefitRead& read) {
    if (read.jpeg_length < 0 || read.header_length < 0 || read.record_length < CRC_BYTES ||
        read.jpeg_crc_at < 0 || read.jpeg_crc_at > read.record_length - CRC_BYTES ||
        read.length < read.jpeg_length)
        return REFIT_BAD_CALL;
    for (int64_t k = 0; k < read.span_count; ++k) {
        const RefitSpan& span = read.spans[k];
        if (span.begin < 0 || span.to < 0 || span.length < 0 ||
            span.length > read.record_length - span.begin || span.length > read.row_length - span.to)
            return REFIT_BAD_CALL;
    }
    const int64_t padding = (TAR_BLOCK - read.jpeg_length % TAR_BLOCK) % TAR_BLOCK;
    const int64_t labels = read.jpeg_length + padding + TAR_BLOCK;
    const int64_t record_at = labels + read.header_length;
    return record_at + read.record_length == read.length ? REFIT_OK : REFIT_BAD_CALL;
}

RefitCode read_one(RefitRead* read) {
    read->detail = 0;
    RefitCode code = check(*read);
    if (code == REFIT_OK && read->descriptor >= 0) code = read_bytes(read);
    if (code != REFIT_OK) return code;
    memset(read->data + read->length, 0, REFIT_SLACK);
    const uint8_t* record = read->data + read->length - read->record_length;
    if (memcmp(record - read->header_length, read->header, read->header_length) != 0)
        return REFIT_NO_LABELS;
    const int64_t crc_at = read->record_length - CRC_BYTES;
    if (refit_crc32c(record, crc_at, 0) != load32(record + crc_at)) return REFIT_LABELS_CRC;
    for (int64_t k = 0; k < read->span_count; ++k) {
        const RefitSpan& span = read->spans[k];
        memcpy(read->row + span.to, record + span.begin, static_cast<size_t>(span.length));
    }
    if (refit_crc32c(read->data, read->jpeg_length, 0) != load32(record + read->jpeg_crc_at))
        return REFIT_JPEG_CRC;
    return REFIT_OK;
}

int64_t microseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1000000} + now.tv_nsec / 1000;
}

}  // namespace

void refit_read(RefitRead* reads, int64_t count, int32_t threads, int64_t patience) {
    int64_t done = 0, before = microseconds(), took = 0;
    while (done < count && took < patience) {
        reads[done].code = read_one(&reads[done]);
        ++done;
        const int64_t now = microseconds();
        took = now - before;
        before = now;
    }
    spread(count - done, threads,
           [&](int64_t item, int) { reads[done + item].code = read_one(&reads[done + item]); });
}
