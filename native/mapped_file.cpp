#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "errors.h"

namespace kotoba {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  const int error = errno;
  throw Error(error == ENOENT ? "ERR_FILE_NOT_FOUND" : "ERR_FILE_READ",
              detail::join(path, ": cannot ", what, ": ", std::strerror(error)));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO would wait for a writer
  if (fd_ < 0) fail(path, "open");
  struct stat status;
  if (fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(fd_);
    throw Error("ERR_FILE_READ", path + ": expected a regular file");
  }
  size_ = status.st_size;
  if (size_ == 0) return;
  void* data = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, fd_, 0);
  if (data == MAP_FAILED) {
    close(fd_);
    fail(path, "map");
  }
  data_ = static_cast<std::byte*>(data);
  guard_.emplace(data_, static_cast<size_t>(size_));
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_) munmap(data_, static_cast<size_t>(size_));
  close(fd_);
}

bool MappedFile::intact() const {
  struct stat status;
  return fstat(fd_, &status) == 0 && status.st_size >= size_ && !(guard_ && guard_->lost_pages());
}

void MappedFile::will_need(int64_t offset, int64_t bytes) const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t start = offset / page * page;
  madvise(data_ + start, static_cast<size_t>(offset + bytes - start),
          MADV_WILLNEED);  // a hint: failure is fine
}

void MappedFile::forget(int64_t offset, int64_t bytes) const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t start = (offset + page - 1) / page * page, end = (offset + bytes) / page * page;
  if (start < end) madvise(data_ + start, static_cast<size_t>(end - start), MADV_DONTNEED);
}

}  // namespace kotoba
