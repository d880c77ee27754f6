// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libvfio.h>
#include <libvfio/pci_sysfs.h>
#include <libvfio/system.h>

unsigned long pci_read_hex(const char *bdf, const char *attr)
{
	char path[PATH_MAX], buf[64];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, attr);
	if (read_text(path, buf, sizeof(buf)) < 0)
		return ULONG_MAX;

	return strtoul(buf, NULL, 16);
}

bool pci_present(const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s", bdf);
	return !access(path, F_OK);
}

bool pci_is_suspended(const char *bdf)
{
	u64 deadline = now_us() + 20 * 1000000;
	char path[PATH_MAX], status[32] = "";

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/power/runtime_status", bdf);
	while (now_us() < deadline) {
		if (read_text(path, status, sizeof(status)) >= 0 &&
		    !strcmp(status, "suspended\n"))
			return true;
		usleep(10000);
	}

	printf("# %s: %s", path, status);
	return false;
}

int pci_bar(const char *bdf, int bar, u64 *start, u64 *size)
{
	char path[PATH_MAX], buf[1024], *line, *save = NULL;
	unsigned long long first, last;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource", bdf);
	if (read_text(path, buf, sizeof(buf)) < 0)
		return -ENODEV;

	for (line = strtok_r(buf, "\n", &save); line && bar; bar--)
		line = strtok_r(NULL, "\n", &save);

	if (!line || sscanf(line, "%llx %llx", &first, &last) != 2 || !last)
		return -ENOENT;

	if (start)
		*start = first;
	if (size)
		*size = last - first + 1;
	return 0;
}

int pci_unbind(const char *bdf)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver/unbind", bdf);
	return write_text(path, bdf);
}

/* Of any driver, if @driver is NULL */
static bool pci_has_driver(const char *bdf, const char *driver)
{
	char *name = sysfs_driver_get(bdf);
	bool has = name && (!driver || !strcmp(name, driver));

	free(name);
	return has;
}

bool pci_bound_to_vfio(const char *bdf)
{
	return pci_has_driver(bdf, "vfio-pci");
}

int pci_bind_vfio(const char *bdf)
{
	char path[PATH_MAX];
	int ret;

	if (pci_bound_to_vfio(bdf))
		return 0;

	if (pci_has_driver(bdf, NULL)) {
		ret = pci_unbind(bdf);
		if (ret)
			return ret;
	}

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/driver_override", bdf);
	ret = write_text(path, "vfio-pci");
	if (!ret)
		ret = write_text("/sys/bus/pci/drivers_probe", bdf);
	if (!ret && !pci_bound_to_vfio(bdf))
		ret = -ENXIO;

	return ret;
}

int pci_slot(const char *bdf, char *slot, size_t len)
{
	char path[PATH_MAX], addr[64];
	struct dirent *entry;
	int ret = -ENOENT;
	DIR *dir;

	dir = opendir("/sys/bus/pci/slots");
	if (!dir)
		return -errno;

	while (ret && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/bus/pci/slots/%s/address", entry->d_name);
		if (read_text(path, addr, sizeof(addr)) < 0)
			continue;
		addr[strcspn(addr, "\n")] = '\0';
		/* The slot has domain:bus:device, without the function */
		if (strncmp(addr, bdf, strlen(addr)) || bdf[strlen(addr)] != '.')
			continue;
		snprintf(slot, len, "/sys/bus/pci/slots/%s", entry->d_name);
		ret = 0;
	}
	closedir(dir);

	return ret;
}

void *pci_sysfs_map(const char *bdf, int bar, size_t size)
{
	char path[PATH_MAX];
	void *p;
	int fd;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource%d", bdf, bar);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);

	return p == MAP_FAILED ? NULL : p;
}
