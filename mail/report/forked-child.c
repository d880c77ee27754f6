// SPDX-License-Identifier: GPL-2.0
/* forked-child DEVICE, such as 0000:01:00.0, which is bound to vfio-pci and has memory */
#include <err.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct vfio_region_info cfg = { .argsz = sizeof(cfg), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	struct vfio_region_info bar = { .argsz = sizeof(bar) };
	char path[64], group[256] = "";
	int container, fd, dev, status, go[2];
	unsigned short cmd = PCI_COMMAND_MEMORY;
	volatile unsigned int *p;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", argc > 1 ? argv[1] : "");
	if (readlink(path, group, sizeof(group) - 1) < 0)
		err(2, "%s", path);
	snprintf(path, sizeof(path), "/dev/vfio/%s", basename(group));
	container = open("/dev/vfio/vfio", O_RDWR);
	fd = open(path, O_RDWR);
	if (ioctl(fd, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		err(2, "%s", path);
	dev = ioctl(fd, VFIO_GROUP_GET_DEVICE_FD, argv[1]);
	if (ioctl(dev, VFIO_DEVICE_GET_REGION_INFO, &bar) ||
	    ioctl(dev, VFIO_DEVICE_GET_REGION_INFO, &cfg) ||
	    pwrite(dev, &cmd, 2, cfg.offset + PCI_COMMAND) != 2)
		err(2, "%s", argv[1]);
	p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, dev, bar.offset);
	if (p == MAP_FAILED || pipe(go))
		err(2, "BAR 0");
	printf("parent, memory enabled: %#x\n", *p);
	if (!fork()) {
		read(go[0], &cmd, 1);
		_exit(*p & 0);
	}
	cmd = 0;
	if (pwrite(dev, &cmd, 2, cfg.offset + PCI_COMMAND) != 2 || write(go[1], "", 1) != 1)
		err(2, "%s", argv[1]);
	wait(&status);
	printf("child, memory disabled: %s\n", WIFSIGNALED(status) ? "SIGBUS" : "reads it");
	return !(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}
