/* cell_image: a static ELF image, linked at CELL_BASE, into the guest's memory.
 * Every number in the file is checked before it is used. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cell_host.h"

#define IMAGE_MAX (64u << 20)
#define SEGMENTS_MAX 16u

struct file {
    uint8_t *bytes;
    size_t n;
};

static int
read_file(const char *path, struct file *f)
{
    struct stat st;
    size_t done = 0;
    int error = 0;

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    if (fstat(fd, &st)) {
        error = errno;
    } else if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > IMAGE_MAX) {
        error = EINVAL;
    }
    f->n = error ? 0 : (size_t)st.st_size;
    f->bytes = error ? NULL : malloc(f->n);
    error = error ? error : f->bytes ? 0 : ENOMEM;
    while (!error && done < f->n) {
        ssize_t got = read(fd, f->bytes + done, f->n - done);
        error = got < 0 ? errno : got == 0 ? EINVAL : 0;
        done += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (error) {
        free(f->bytes);
        f->bytes = NULL;
    }
    return error;
}

static bool
in_file(const struct file *f, uint64_t offset, uint64_t n)
{
    return offset <= f->n && n <= f->n - offset;
}

static int
load_segment(const struct file *f, const Elf64_Phdr *p, uint8_t *memory, uint64_t bytes)
{
    uint64_t at = p->p_vaddr - CELL_BASE;

    if (p->p_vaddr < CELL_BASE || !in_file(f, p->p_offset, p->p_filesz) ||
        p->p_filesz > p->p_memsz || at > bytes || p->p_memsz > bytes - at) {
        return EINVAL;
    }
    if (memory) {
        memcpy(memory + at, f->bytes + p->p_offset, p->p_filesz);
    }
    return 0;
}

static bool
find_build_id(const struct file *f, const Elf64_Phdr *p, uint8_t build_id[CELL_BUILD_ID_BYTES])
{
    uint64_t at = p->p_offset, end = p->p_offset + p->p_filesz;
    Elf64_Nhdr note;

    if (!in_file(f, p->p_offset, p->p_filesz)) {
        return false;
    }
    while (end - at >= sizeof note) {
        memcpy(&note, f->bytes + at, sizeof note);
        at += sizeof note;
        uint64_t name = ((uint64_t)note.n_namesz + 3) & ~3ull;
        uint64_t desc = ((uint64_t)note.n_descsz + 3) & ~3ull;
        if (name > end - at || desc > end - at - name) {
            return false;
        }
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
            !memcmp(f->bytes + at, "GNU", 4) && note.n_descsz == CELL_BUILD_ID_BYTES) {
            memcpy(build_id, f->bytes + at + name, CELL_BUILD_ID_BYTES);
            return true;
        }
        at += name + desc;
    }
    return false;
}

static int
load(const struct file *f, uint8_t *memory, uint64_t bytes, uint8_t *build_id, uint64_t *entry)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph;
    bool has_id = false;
    int error = 0;

    if (f->n < sizeof eh) {
        return EINVAL;
    }
    memcpy(&eh, f->bytes, sizeof eh);
    if (memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
        eh.e_type != ET_EXEC || eh.e_machine != EM_X86_64 || eh.e_phentsize != sizeof ph ||
        eh.e_phnum > SEGMENTS_MAX || !in_file(f, eh.e_phoff, eh.e_phnum * sizeof ph)) {
        return EINVAL;
    }
    for (unsigned i = 0; i < eh.e_phnum && !error; i++) {
        memcpy(&ph, f->bytes + eh.e_phoff + i * sizeof ph, sizeof ph);
        if (ph.p_type == PT_LOAD) {
            error = load_segment(f, &ph, memory, bytes);
        } else if (ph.p_type == PT_NOTE) {
            has_id = has_id || find_build_id(f, &ph, build_id);
        }
    }
    *entry = eh.e_entry;
    if (!error && (!has_id || eh.e_entry < CELL_BASE || eh.e_entry - CELL_BASE >= bytes)) {
        error = EINVAL;
    }
    return error;
}

/* Of page 0, what the image says about itself. */
static bool
info_ok(const struct cell_info *info, uint64_t bytes)
{
    uint64_t stack = info->stack_top - CELL_BASE, net = info->net_start - CELL_BASE;

    return info->magic == CELL_MAGIC && info->version == CELL_ABI_VERSION &&
           info->stack_top > CELL_BASE && stack % 16 == 0 && stack >= 4096 && stack <= bytes &&
           info->net_start >= CELL_BASE && net % CELL_PAGE_BYTES == 0 && net <= bytes &&
           info->net_bytes % CELL_PAGE_BYTES == 0 && info->net_bytes <= bytes - net;
}

int
cell_image_load(const char *path, uint8_t *memory, uint64_t bytes,
                uint8_t build_id[CELL_BUILD_ID_BYTES], uint64_t *entry)
{
    struct file f = {0};

    int error = read_file(path, &f);
    if (error) {
        return error;
    }
    error = load(&f, memory, bytes, build_id, entry);
    free(f.bytes);
    if (!error && memory && !info_ok((const struct cell_info *)memory, bytes)) {
        error = EINVAL;
    }
    return error;
}
