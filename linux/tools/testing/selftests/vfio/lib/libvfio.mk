# SPDX-License-Identifier: GPL-2.0
# What the tests share.  compat/ has as much of newer kernels' libvfio as that needs.
LIBVFIO_C := ../compat/libvfio.c

LIBVFIO_OUTPUT := $(OUTPUT)/libvfio
LIBVFIO_O := $(patsubst %.c,$(LIBVFIO_OUTPUT)/%.o,$(subst ../,,$(LIBVFIO_C)))

CFLAGS += -Icompat/include -Ilib/include

$(LIBVFIO_OUTPUT)/compat/%.o: compat/%.c
	mkdir -p $(@D)
	$(CC) $(CFLAGS) -c $< -o $@

$(LIBVFIO_OUTPUT)/%.o: lib/%.c
	mkdir -p $(@D)
	$(CC) $(CFLAGS) -c $< -o $@

EXTRA_CLEAN += $(LIBVFIO_OUTPUT)
