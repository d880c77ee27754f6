// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <libvfio/memory.h>
#include <libvfio/system.h>

static long proc_status_kb(const char *key)
{
	char line[256];
	long kb = -1;
	FILE *f;

	f = fopen("/proc/self/status", "re");
	if (!f)
		return -1;

	while (kb < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			kb = strtol(line + strlen(key), NULL, 10);
	fclose(f);

	return kb;
}

long proc_locked_kb(void)
{
	return proc_status_kb("VmLck:");
}

long proc_page_tables_kb(void)
{
	return proc_status_kb("VmPTE:");
}

int pages_of(const void *addr, size_t n, u64 *pfn)
{
	size_t len = n * sizeof(*pfn), i;
	int fd, ret = 0;

	fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;

	if (pread(fd, pfn, len, (uintptr_t)addr / SZ_4K * sizeof(*pfn)) != (ssize_t)len)
		ret = -EIO;
	close(fd);

	/* Bit 63: there is a page; bits 0 to 54: its number */
	for (i = 0; !ret && i < n; i++)
		pfn[i] = pfn[i] >> 63 ? pfn[i] & ((1ULL << 55) - 1) : 0;

	return ret;
}

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define HUGETLB		"/sys/kernel/mm/hugepages/hugepages-2048kB/"

const char *ram_is_missing(const struct ram_kind *kind)
{
	if (kind->huge && access(THP "enabled", F_OK))
		return "this kernel has no transparent huge pages";
	if (kind->huge && kind->shared && write_text(THP "shmem_enabled", "advise"))
		return "this kernel has no huge pages in shared memory";
	if (kind->hugetlb && write_text(HUGETLB "nr_hugepages", "8"))
		return "this kernel has no hugetlb pages";

	return NULL;
}

void *ram_reserve(size_t size)
{
	void *p = mmap(NULL, size + SZ_2M, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;

	return (void *)(((uintptr_t)p + SZ_2M - 1) & ~(SZ_2M - 1UL));
}

void *ram_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

void *ram_of_kind(const struct ram_kind *kind, int *fd)
{
	int flags = MAP_FIXED;
	void *at, *mem;

	*fd = -1;
	if (kind->shared) {
		flags |= MAP_SHARED;
		*fd = memfd_create("ram", MFD_CLOEXEC | (kind->hugetlb ? MFD_HUGETLB : 0));
		if (*fd < 0 || ftruncate(*fd, RAM_SIZE))
			return NULL;
	} else {
		flags |= MAP_PRIVATE | MAP_ANONYMOUS | (kind->hugetlb ? MAP_HUGETLB : 0);
	}

	at = ram_reserve(RAM_SIZE);
	if (!at)
		return NULL;
	mem = mmap(at, RAM_SIZE, PROT_READ | PROT_WRITE, flags, *fd, 0);
	if (mem == MAP_FAILED)
		return NULL;
	if (!kind->hugetlb && madvise(mem, RAM_SIZE, kind->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return NULL;

	memset(mem, RAM_BYTE, RAM_SIZE);
	return mem;
}

bool ram_is_huge(const void *addr)
{
	const u64 huge = 1ULL << 17, thp = 1ULL << 22;
	u64 flags = 0, pfn;
	int fd;

	if (pages_of(addr, 1, &pfn) || !pfn)
		return false;
	fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;

	if (pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) != sizeof(flags))
		flags = 0;
	close(fd);

	return flags & (huge | thp);
}

const char *pmem_mount(char *dir, const char *options)
{
	const char *pmem = getenv("VFIO_SELFTESTS_PMEM");
	char command[256];

	dir[0] = '\0';
	if (!pmem)
		return "needs a pmem device to format, in VFIO_SELFTESTS_PMEM";
	snprintf(command, sizeof(command), "mke2fs -F -b 4096 %s > /dev/null 2>&1", pmem);
	if (system(command))
		return "needs mke2fs, and a pmem device that it can format";

	snprintf(dir, PMEM_DIR_LEN, "/tmp/vfio-XXXXXX");
	if (!mkdtemp(dir)) {
		dir[0] = '\0';
		return "needs a /tmp to mount in";
	}
	if (mount(pmem, dir, "ext4", 0, options)) {
		rmdir(dir);
		dir[0] = '\0';
		return "this kernel has no ext4, or none with these options";
	}

	return NULL;
}

int pmem_unmount(char *dir)
{
	int ret = 0;

	if (!dir[0])
		return 0;

	if (umount2(dir, 0)) {
		ret = -errno;
		umount2(dir, MNT_DETACH);
	}
	rmdir(dir);
	dir[0] = '\0';

	return ret;
}
