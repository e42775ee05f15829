"""What the manual pages say that each call may fail with on a file that is open and well meant."""

from errno import (
    EACCES,
    EAGAIN,
    EBUSY,
    EDQUOT,
    EEXIST,
    EFBIG,
    EINTR,
    EINVAL,
    EIO,
    ELOOP,
    EMFILE,
    ENFILE,
    ENODEV,
    ENOENT,
    ENOLCK,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    EROFS,
    ESTALE,
    ETIMEDOUT,
    EXDEV,
)

# Of library.c: half of the bytes; no types of a folder's entries.
SHORT, UNKNOWN = -1, -2

# NFS and its like add these to whatever they are asked.
_REMOTE = (EIO, ESTALE, ETIMEDOUT)
_ABSENT = (ENOSYS, EOPNOTSUPP)

ERRORS: dict[str, tuple[int, ...]] = {
    "open": (*_REMOTE, EACCES, EINTR, ELOOP, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC, EPERM, EROFS),
    "read": (*_REMOTE, EINTR, SHORT),
    "write": (*_REMOTE, EDQUOT, EFBIG, EINTR, ENOSPC, EPERM, SHORT),
    "close": (EIO, EDQUOT, EINTR, ENOSPC),
    "fsync": (EIO, EDQUOT, EINTR, EINVAL, ENOSPC, EROFS, *_ABSENT),
    "flock": (EIO, EAGAIN, EINTR, EINVAL, ENOLCK, *_ABSENT),
    "fcntl": (EIO, EACCES, EAGAIN, EINVAL, ENOLCK, *_ABSENT),
    "rename": (*_REMOTE, EACCES, EBUSY, EDQUOT, ENOENT, ENOMEM, ENOSPC, EPERM, EROFS, EXDEV),
    "unlink": (*_REMOTE, EACCES, EBUSY, ENOENT, ENOMEM, EPERM, EROFS),
    "mkdir": (*_REMOTE, EACCES, EDQUOT, EEXIST, ENOENT, ENOMEM, ENOSPC, EPERM, EROFS),
    "stat": (*_REMOTE, EACCES, ELOOP, ENOENT, ENOMEM, EOVERFLOW),
    "fstat": (*_REMOTE, ENOMEM, EOVERFLOW),
    "opendir": (*_REMOTE, EACCES, EMFILE, ENFILE, ENOENT, ENOMEM),
    "readdir": (*_REMOTE, ENOENT, UNKNOWN),
    "lseek": (*_REMOTE, EINVAL),
    "mmap": (EACCES, EAGAIN, EINVAL, ENODEV, ENOMEM, EPERM),
    "ftruncate": (EIO, EFBIG, EINTR, EINVAL, ENOSPC, EPERM, EROFS, *_ABSENT),
    "fallocate": (EIO, EINTR, ENODEV, ENOSPC, *_ABSENT),
    "fadvise": (EINVAL, *_ABSENT),
    "chmod": (EIO, EPERM, EROFS, *_ABSENT),
    "utimens": (EIO, EACCES, EPERM, EROFS, *_ABSENT),
    "access": (EIO, EACCES, ENOENT, EROFS),
    "readlink": (EIO, EINVAL, *_ABSENT),
    "link": (EIO, EPERM, EXDEV, *_ABSENT),
    "symlink": (EIO, EPERM, *_ABSENT),
    "rmdir": (EIO, EACCES, EBUSY, ENOENT),
    "sendfile": (EIO, EINVAL, ENOMEM, *_ABSENT),
    "copy_file_range": (EIO, EINVAL, ENOSPC, EXDEV, *_ABSENT),
}
# What a call says of the file itself, whatever is true a moment later.
OF_THE_FILE = (EACCES, ELOOP, ENOENT, EPERM)
# A call that is asked again by itself, which would go on for ever.
ONLY_ONCE = (EINTR,)
