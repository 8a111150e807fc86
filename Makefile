# Weft.  On a fresh Debian 12, as root:
#
#   make run          a lab: three hosts, a controller, 12 guests of two tenants, VMs that move, live view
#   make check        every test
#   make bench        benchmarks beside their peers
#
# Further: make build, make check-ovs, make check-ovs-unit, make check-xen, make lint, make fmt, make fmt-check,
# make compile_commands.json, make clean.
# Variables: SANITIZE=address,undefined or thread; FUZZ_SECONDS=N; V=1.

# All cores, unless the command line says otherwise.
ifeq (,$(findstring -j,$(MAKEFLAGS)))
MAKEFLAGS += -j$(shell nproc)
endif

comma := ,
SANITIZE ?=
variant := $(if $(SANITIZE),$(subst $(comma),-,$(SANITIZE)),plain)
O := build/$(variant)
BIN := $(if $(SANITIZE),$(O)/bin,build/bin)
OVS := build/ovs
GEN := build/gen
Q := $(if $(V),,@)

CC := gcc
MARCH := -march=x86-64-v3
OPT := -O2 -g $(MARCH)
# A sanitizer's build is looked at by line, and is compiled in half the time.
SAN_OPT := -O1 -g1 $(MARCH)
WARN := -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
        -Wstrict-prototypes -Wmissing-prototypes -Wvla
SAN := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer $(if $(findstring thread,$(SANITIZE)),-Wno-tsan))
CFLAGS := $(if $(SANITIZE),$(SAN_OPT),$(OPT)) -std=gnu11 -fno-strict-aliasing -pthread $(WARN) $(SAN)
CPPFLAGS := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64

# Evaluated when first used, because the packages may not be there yet.
pkg = $(eval $1 := $$(shell $2))$($1)
DPDK_CFLAGS = $(call pkg,dpdk_cflags_,pkg-config --cflags-only-I libdpdk) -include rte_config.h
DPDK_LIBS = $(call pkg,dpdk_libs_,pkg-config --libs libdpdk)
NL_CFLAGS = $(call pkg,nl_cflags_,pkg-config --cflags libnl-3.0 libnl-route-3.0 jansson)
NL_LIBS = $(call pkg,nl_libs_,pkg-config --libs libnl-3.0 libnl-route-3.0 jansson)
TOOL_LIBS = $(NL_LIBS) -lcurl -lssl -lcrypto
FLOW_LIBS = -lsqlite3 -lmicrohttpd -lgnutls -lpcap -ljansson -lcurl -lssl -lcrypto
OVS_CFLAGS = -DHAVE_CONFIG_H $(call pkg,ovs_cflags_,cat $(OVS)/ovs-cflags) \
             $(foreach d,build build/include build/lib src src/include src/lib src/vswitchd src/ofproto build/vswitchd,-I$(OVS)/$d)
MIGRATE_LIBS := -llz4 -lzstd -lxxhash
# Xen's toolstack, for the driver that moves Xen's domains.
XEN_TOOL_LIBS := -lxenlight -lxenguest -lxenctrl -lxentoollog -lxenstore
XEN_LIBS := -lxenstore -lxengnttab -lxenevtchn

# --- modules: who may include whom ---------------------------------------
# A header of a folder that is not on the list does not compile.
modules := lib netback vlan netflow migrate fast vswitch controller xapi-net tools
INC_lib = -Ilib
INC_netback = -Ilib -Inetback $(DPDK_CFLAGS)
INC_vlan = -Ilib -Ivlan
INC_netflow = -Ilib -Inetflow
INC_migrate = -Ilib -Imigrate
INC_vswitch/fast = -Ilib -Ivswitch $(DPDK_CFLAGS)
INC_vswitch = -Ilib -Inetback -Ivlan -Inetflow -Ivswitch $(OVS_CFLAGS) $(DPDK_CFLAGS)
INC_controller = -Ilib -Ivlan -Icontroller -I$(GEN) $(OVS_CFLAGS)
INC_xapi-net = -Ilib -Ixapi-net -I$(GEN) $(OVS_CFLAGS)
INC_tools = -Ilib -Itools $(NL_CFLAGS)
INC_lib/ovs = -Ilib $(OVS_CFLAGS) $(DPDK_CFLAGS)
INC_tests = -Ilib -Inetback -Ivlan -Inetflow -Imigrate -Ivswitch -Itools -Icontroller -Itests/unit $(DPDK_CFLAGS)
INC_tests/ovs = $(INC_vswitch) -Imigrate -Icontroller -Ixapi-net -I$(GEN) -Itests/unit
INC_perf = $(INC_tests)

srcs = $(filter-out $1/main_%,$(wildcard $1/*.c))
SRC_lib := $(call srcs,lib) $(call srcs,lib/hv)
SRC_netback := $(call srcs,netback)
SRC_vlan := $(call srcs,vlan)
SRC_netflow := $(call srcs,netflow)
# What parses; fuzzed.
SRC_decode := $(filter $(foreach f,collect decode_ element exporter flow_block flow_f flow_n flow_r template,netflow/$f%),$(SRC_netflow))
SRC_fast := $(call srcs,vswitch/fast)
SRC_vswitch := $(call srcs,vswitch) lib/ovs/canary.c
# Without Open vSwitch's headers; fuzzed.
SRC_record := $(filter controller/record%.c controller/doc%.c,$(call srcs,controller))
SRC_controller := $(call srcs,controller)
SRC_migrate := $(call srcs,migrate)
SRC_xapi-net := $(call srcs,xapi-net)
SRC_tools := $(call srcs,tools)
# Clients of Open vSwitch's daemons, for programs that know no Open vSwitch otherwise.
SRC_ovsclient := $(filter-out %/canary.c,$(call srcs,lib/ovs))

# $(call objs,sources)
objs = $(patsubst %.c,$(O)/%.o,$1)
# $(call inc,source): flags of its folder
inc = $(or $(INC_$(patsubst %/,%,$(dir $1))),$(INC_$(firstword $(subst /, ,$1))))

lib_of = $(O)/lib$(if $(filter lib,$1),weft,$(notdir $1)).a
libs_no_ovs = $(foreach m,tools fast netback vlan netflow migrate lib,$(call lib_of,$m))
libs_controller = $(foreach m,controller ovsclient vlan lib,$(call lib_of,$m))
libs_migrate = $(foreach m,migrate ovsclient lib,$(call lib_of,$m))
libs_xapi = $(foreach m,xapi-net ovsclient lib,$(call lib_of,$m))
libs_vswitch = $(foreach m,vswitch fast netback vlan netflow lib,$(call lib_of,$m))

# --- programs --------------------------------------------------------------
tool_mains := $(wildcard tools/main_*.c)
tools_bin := $(patsubst tools/main_%.c,$(BIN)/weft-%,$(filter-out tools/main_weft.c,$(tool_mains))) \
             $(if $(wildcard tools/main_weft.c),$(BIN)/weft)
vswitch_bin := $(patsubst vswitch/main_%.c,$(BIN)/weft-%,$(wildcard vswitch/main_*.c))
controller_bin := $(patsubst controller/main_%.c,$(BIN)/weft-%,$(wildcard controller/main_*.c))
migrate_bin := $(patsubst migrate/main_%.c,$(BIN)/weft-%,$(wildcard migrate/main_*.c))
xapi_bin := $(patsubst xapi-net/main_%.c,$(BIN)/weft-%,$(wildcard xapi-net/main_*.c))
netflow_bin := $(patsubst netflow/main_%.c,$(BIN)/weft-%,$(wildcard netflow/main_*.c))
ovs_bin := $(addprefix $(BIN)/,ovs-vsctl ovs-ofctl ovs-appctl ovs-dpctl ovsdb-server ovsdb-client ovsdb-tool)
unit_tests := $(patsubst tests/unit/%.c,$(O)/tests/%,$(wildcard tests/unit/test_*.c))
unit_common := $(filter-out tests/unit/test_%,$(wildcard tests/unit/*.c))
ctl_tests := $(patsubst tests/ovs/%.c,$(O)/tests/%,$(wildcard tests/ovs/test_ctl_*.c))
mig_tests := $(patsubst tests/ovs/%.c,$(O)/tests/%,$(wildcard tests/ovs/test_mig_*.c))
xapi_tests := $(patsubst tests/ovs/%.c,$(O)/tests/%,$(wildcard tests/ovs/test_xapi_*.c))
ovs_tests := $(filter-out $(ctl_tests) $(mig_tests) $(xapi_tests),$(patsubst tests/ovs/%.c,$(O)/tests/%,$(wildcard tests/ovs/test_*.c)))
perf_ctl := $(patsubst perf/%.c,$(O)/perf/%,$(wildcard perf/bench_compile.c))
perf_bin := $(filter-out $(perf_ctl),$(patsubst perf/%.c,$(O)/perf/%,$(wildcard perf/bench_*.c)))
fuzzers := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

# The OVS functions that ours stand in for (vswitch/offload_ports.c, dpdk_start.c).
# ct.o holds OVS's connection tracker and must come before OVS's own objects of it.
ovs_wraps = -Wl,-u,ct_ref_take \
            $(addprefix -Wl$(comma)--wrap=,$(shell grep -oh '^__wrap_[a-z0-9_]*' vswitch/*.c | sed 's/^__wrap_//'))
ovs_objs := $(addprefix $(OVS)/build/,vswitchd/bridge.o vswitchd/system-stats.o \
            ofproto/.libs/libofproto.a lib/.libs/libsflow.a lib/.libs/libopenvswitch.a \
            lib/.libs/libopenvswitchavx512.a)

.PHONY: all run check check-sanitized bench build deps deps-test tests lint fmt fmt-check clean check-ovs check-ovs-unit check-xen
all: build

deps:
	@lib/deps.sh packages.txt
deps-test:
	@lib/deps.sh packages.txt tests/packages.txt

# The packages come first, then a fresh make that can ask pkg-config.
build: deps
	$(Q)$(MAKE) --no-print-directory programs
run: build
	$(Q)$(BIN)/weft lab run --pool --hosts 3 --guests 4 --cells 1
check: deps-test
	$(Q)$(MAKE) --no-print-directory programs tests
	$(Q)tests/run.sh
# The unit tests once more, in a sanitizer's build, and all programs together.  TSan has
# nothing to say of a test that begins no thread, and takes long; of the controller only
# REST has any.
one_thread = $(addprefix %/test_,collect_hostile dp_match fast_engine fast_smc flow_store_raw lab mig_claim mig_xen offload)
san_tests = $(if $(findstring thread,$(SANITIZE)),\
              $(filter-out $(one_thread),$(unit_tests) $(ovs_tests) $(filter %/test_ctl_rest %/test_ctl_rest_hostile %/test_ctl_rest_session,$(ctl_tests)) $(mig_tests) $(xapi_tests)),\
              $(unit_tests) $(ovs_tests) $(ctl_tests) $(mig_tests) $(xapi_tests))
check-sanitized: deps-test
	$(Q)$(MAKE) --no-print-directory programs $(san_tests)
	$(Q)VARIANT=$(variant) WEFT_BIN=$(CURDIR)/$(BIN) ASAN_OPTIONS=detect_leaks=1:$$ASAN_OPTIONS \
	    LSAN_OPTIONS=suppressions=$(CURDIR)/tests/lsan.supp \
	    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    TSAN_OPTIONS=suppressions=$(CURDIR)/tests/tsan.supp:halt_on_error=1 \
	    TEST_TIMEOUT=900 tests/run.sh unit smoke/churn
bench: build
	$(Q)$(MAKE) --no-print-directory benches
	$(Q)perf/run.sh
check-ovs check-ovs-unit: build
	$(Q)tests/system/check_ovs.sh $(if $(findstring unit,$@),unit,userspace)
check-xen: build
	$(Q)tests/system/xen/run.sh $(CASES)

.PHONY: programs benches
programs: $(tools_bin) $(vswitch_bin) $(controller_bin) $(netflow_bin) $(migrate_bin) $(xapi_bin) $(ovs_bin) build/share/vswitch.ovsschema build/share/pool.ovsschema build/share/cell.img
benches: $(perf_bin) $(perf_ctl)
tests: $(unit_tests) $(ovs_tests) $(ctl_tests) $(mig_tests) $(xapi_tests) $(fuzzers)

# --- rules -------------------------------------------------------------------
$(OVS)/stamp: lib/ovs/build.sh /usr/src/openvswitch/openvswitch.tar.gz
	$(Q)lib/ovs/build.sh $(OVS) '$(OPT)'
	$(Q)touch $@
$(ovs_objs): $(OVS)/stamp ;
$(call objs,$(SRC_vswitch) $(SRC_controller) $(SRC_xapi-net) $(SRC_ovsclient) $(wildcard vswitch/main_*.c controller/main_*.c xapi-net/main_*.c tests/ovs/*.c)): | $(OVS)/stamp
$(call objs,$(SRC_controller) $(SRC_xapi-net) $(wildcard controller/main_*.c xapi-net/main_*.c tests/ovs/test_ctl_*.c tests/ovs/test_xapi_*.c)): | $(GEN)/pool-idl.h

# The pool database's replica in memory, generated from its schema.
idlc = PYTHONPATH=$(OVS)/src/python /usr/bin/python3 $(OVS)/src/ovsdb/ovsdb-idlc.in
$(GEN)/pool.ovsidl: controller/pool.ovsschema controller/pool_idl.ann $(OVS)/stamp
	@mkdir -p $(@D)
	$(Q)$(idlc) annotate $(wordlist 1,2,$^) >$@.tmp && mv $@.tmp $@
$(GEN)/pool-idl.c $(GEN)/pool-idl.h: $(GEN)/pool-idl.%: $(GEN)/pool.ovsidl
	$(Q)$(idlc) c-idl-$(if $(filter h,$*),header,source) $< >$@.tmp && mv $@.tmp $@
$(O)/gen/pool-idl.o: $(GEN)/pool-idl.c $(GEN)/pool-idl.h
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(INC_controller) $(CFLAGS) -Wno-unused-variable -Wno-unused-but-set-variable -MMD -MP -c -o $@ $<
# jansson beside libopenvswitch: see lib/ovs/jansson_ns.h.
$(GEN)/libjansson.a: lib/ovs/jansson_ns.h
	@mkdir -p $(@D)
	$(Q)objcopy $$(sed -n 's/^#define \(json_[a-z]*\) \(weft_.*\)/--redefine-sym \1=\2/p' $<) \
	    "$$($(CC) -print-file-name=libjansson.a)" $@

$(O)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(call inc,$<) $(CFLAGS) -MMD -MP -c -o $@ $<

# The check of the CPU must itself run on any x86-64.
$(O)/lib/cpu_check.o: CFLAGS := -O2 -std=gnu11 $(WARN) -march=x86-64

define archive
$(call lib_of,$1): $(call objs,$(SRC_$1))
	@rm -f $$@
	$$(Q)ar rcs $$@ $$^
endef
$(foreach m,$(modules) ovsclient,$(eval $(call archive,$m)))

$(call lib_of,controller) $(call lib_of,xapi-net): $(O)/gen/pool-idl.o

cpu_check := $(O)/lib/cpu_check.o

define link
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $1
endef

$(BIN)/weft: $(O)/tools/main_weft.o $(libs_no_ovs)
	$(call link,$(cpu_check) $< -Wl$(comma)--start-group $(libs_no_ovs) -Wl$(comma)--end-group -Wl$(comma)--as-needed $(DPDK_LIBS) $(TOOL_LIBS) $(XEN_LIBS) -lm)
$(filter-out $(BIN)/weft,$(tools_bin)): $(BIN)/weft-%: $(O)/tools/main_%.o $(libs_no_ovs)
	$(call link,$(cpu_check) $< -Wl$(comma)--start-group $(libs_no_ovs) -Wl$(comma)--end-group -Wl$(comma)--as-needed $(DPDK_LIBS) $(TOOL_LIBS) $(XEN_LIBS) -lm)
$(netflow_bin): $(BIN)/weft-%: $(O)/netflow/main_%.o $(foreach m,netflow lib,$(call lib_of,$m))
	$(call link,$(cpu_check) $^ -Wl$(comma)--as-needed $(FLOW_LIBS) -lm)
$(vswitch_bin): $(BIN)/weft-%: $(O)/vswitch/main_%.o $(libs_vswitch) $(ovs_objs)
	$(call link,$(cpu_check) $< -Wl$(comma)--start-group $(libs_vswitch) $(ovs_objs) -Wl$(comma)--end-group $(ovs_wraps) -Wl$(comma)--as-needed $(DPDK_LIBS) $(XEN_LIBS) -lssl -lcrypto -lnuma -lm)
$(ovs_tests): $(O)/tests/%: $(O)/tests/ovs/%.o $(libs_vswitch) $(ovs_objs)
	$(call link,$< -Wl$(comma)--start-group $(libs_vswitch) $(filter-out %/bridge.o %/system-stats.o,$(ovs_objs)) -Wl$(comma)--end-group $(ovs_wraps) -Wl$(comma)--as-needed $(DPDK_LIBS) $(XEN_LIBS) -lssl -lcrypto -lnuma -lpcap -lm)

# A database in memory, for tests.
ovsdb_lib = $(if $(filter %/test_ctl_dbgate,$@),$(OVS)/build/ovsdb/.libs/libovsdb.a)
# The functions of OpenSSL and Open vSwitch that controller/host_peer.c and host_limit.c stand in for.
ctl_wraps = $(addprefix -Wl$(comma)--wrap=,$(shell grep -oh '^__wrap_[A-Za-z0-9_]*' controller/*.c | sed 's/^__wrap_//'))
ctl_libs = $(ctl_wraps) -Wl$(comma)--start-group $(libs_controller) $(GEN)/libjansson.a $(filter %/libopenvswitch.a %/libopenvswitchavx512.a,$(ovs_objs)) -Wl$(comma)--end-group \
           -Wl$(comma)--as-needed $(DPDK_LIBS) -lmicrohttpd -lgnutls -lssl -lcrypto -lnuma -lm
$(controller_bin): $(BIN)/weft-%: $(O)/controller/main_%.o $(libs_controller) $(GEN)/libjansson.a $(ovs_objs)
	$(call link,$(cpu_check) $< $(ctl_libs))
$(ctl_tests): $(O)/tests/%: $(O)/tests/ovs/%.o $(libs_controller) $(GEN)/libjansson.a $(ovs_objs)
	$(call link,$< $(ovsdb_lib) $(ctl_libs))
# Open vSwitch's JSON-RPC, streams and database client, and nothing of its datapaths.
ovs_client_objs := $(filter %/libopenvswitch.a %/libopenvswitchavx512.a,$(ovs_objs))
mig_libs = -Wl,--start-group $(libs_migrate) $(GEN)/libjansson.a $(ovs_client_objs) -Wl,--end-group \
           -Wl,--as-needed $(DPDK_LIBS) $(MIGRATE_LIBS) -lssl -lcrypto $(XEN_TOOL_LIBS) -lnuma -lm
$(migrate_bin): $(BIN)/weft-%: $(O)/migrate/main_%.o $(libs_migrate) $(GEN)/libjansson.a $(ovs_objs)
	$(call link,$(cpu_check) $< $(mig_libs))
$(mig_tests): $(O)/tests/%: $(O)/tests/ovs/%.o $(libs_migrate) $(GEN)/libjansson.a $(ovs_objs)
	$(call link,$< $(mig_libs))
xapi_libs = -Wl,--start-group $(libs_xapi) $(GEN)/libjansson.a $(ovs_client_objs) -Wl,--end-group \
            -Wl,--as-needed $(DPDK_LIBS) -lmicrohttpd -lgnutls -lssl -lcrypto -lnuma -lm
$(xapi_bin): $(BIN)/weft-%: $(O)/xapi-net/main_%.o $(libs_xapi) $(GEN)/libjansson.a $(ovs_objs)
	$(call link,$(cpu_check) $< $(xapi_libs))
$(xapi_tests): $(O)/tests/%: $(O)/tests/ovs/%.o $(libs_xapi) $(GEN)/libjansson.a $(ovs_objs)
	$(call link,$< $(xapi_libs))
$(perf_ctl:=.o): INC_perf = $(INC_tests/ovs) -Itests/ovs
$(perf_ctl:=.o): | $(GEN)/pool-idl.h
$(perf_ctl): $(O)/perf/%: $(O)/perf/%.o $(libs_controller) $(GEN)/libjansson.a $(ovs_objs)
	$(call link,$< $(ctl_libs))

# Not written over: they may be running.
$(BIN)/ovs-%: $(OVS)/stamp
	@mkdir -p $(@D)
	$(Q)cp $(OVS)/build/utilities/ovs-$* $@.new && mv $@.new $@
$(BIN)/ovsdb-%: $(OVS)/stamp
	@mkdir -p $(@D)
	$(Q)cp $(OVS)/build/ovsdb/ovsdb-$* $@.new && mv $@.new $@
build/share/pool.ovsschema: controller/pool.ovsschema
	@mkdir -p $(@D)
	$(Q)cp $< $@
build/share/vswitch.ovsschema: $(OVS)/stamp
	@mkdir -p $(@D)
	$(Q)cp $(OVS)/src/vswitchd/vswitch.ovsschema $@

# The cell's guest: a freestanding image at a fixed address, for any x86-64 and the same
# in every variant.  lwIP's sources are fetched, not kept.
cell_lwip := build/lwip/src/src
cell_srcs = $(wildcard tools/cell/*.c) tools/netfront_ring.c \
            $(wildcard $(cell_lwip)/core/*.c $(cell_lwip)/core/ipv4/*.c) $(cell_lwip)/netif/ethernet.c
CELL_CFLAGS := -O2 -g1 -march=x86-64 -std=gnu11 -ffreestanding -fno-strict-aliasing -fno-pic -no-pie -mcmodel=small \
               -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -ffunction-sections -fdata-sections
CELL_LDFLAGS := -nostdlib -static -Wl,--gc-sections,--build-id=sha1,-z,noexecstack,--no-warn-rwx-segments
build/lwip/stamp: tools/cell/build-lwip.sh
	$(Q)$< $(@D)
build/share/cell.img: build/lwip/stamp tools/cell/cell.ld $(wildcard tools/cell/*.[ch] tools/cell/arch/*.h) tools/netfront_ring.c tools/netfront_ring.h lib/hv/xen_abi.h
	@mkdir -p $(@D)
	@echo "  CELL  $@"
	$(Q)$(CC) $(CELL_CFLAGS) $(WARN) -Itools/cell -Itools -Ilib -I$(cell_lwip)/include $(CELL_LDFLAGS) \
	    -Wl,-T,tools/cell/cell.ld -o $@.new $(cell_srcs) && mv $@.new $@

$(unit_tests): $(O)/tests/%: $(O)/tests/unit/%.o $(call objs,$(unit_common)) $(libs_no_ovs)
	$(call link,$< $(call objs,$(unit_common)) -Wl$(comma)--start-group $(libs_no_ovs) -Wl$(comma)--end-group -Wl$(comma)--as-needed $(DPDK_LIBS) $(TOOL_LIBS) $(FLOW_LIBS) $(MIGRATE_LIBS) $(XEN_LIBS) -lpcap -lm)
$(perf_bin): $(O)/perf/%: $(O)/perf/%.o $(call objs,$(unit_common)) $(libs_no_ovs)
	$(call link,$< $(call objs,$(unit_common)) -Wl$(comma)--start-group $(libs_no_ovs) -Wl$(comma)--end-group -Wl$(comma)--as-needed $(DPDK_LIBS) $(TOOL_LIBS) $(FLOW_LIBS) $(MIGRATE_LIBS) $(XEN_LIBS) -lpcap -lm)

# Fuzz targets: clang's libFuzzer over instrumented copies of our own sources.
fuzz_srcs := $(SRC_lib) $(SRC_netback) $(SRC_vlan) $(SRC_migrate) $(SRC_decode) $(SRC_fast) $(SRC_record) $(unit_common)
fuzz_objs := $(patsubst %.c,build/fuzz/obj/%.o,$(fuzz_srcs))
FUZZ_CFLAGS := -O1 -g $(MARCH) -std=gnu11 -fno-strict-aliasing -pthread -fno-omit-frame-pointer \
               -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
build/fuzz/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  FUZZ  $<"
	$(Q)clang $(CPPFLAGS) $(call inc,$<) $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<
# The document's parser has no headers of Open vSwitch.
build/fuzz/obj/controller/%.o: INC_controller = -Ilib -Icontroller
# What speaks OVSDB's JSON, and the database that it is tried on.
dbgate_fuzz := controller/dbgate_role tests/fuzz/fuzz_dbgate
$(dbgate_fuzz:%=build/fuzz/obj/%.o): INC_controller = -Ilib -Icontroller $(OVS_CFLAGS)
$(dbgate_fuzz:%=build/fuzz/obj/%.o): INC_tests = $(INC_controller)
$(dbgate_fuzz:%=build/fuzz/obj/%.o): | $(OVS)/stamp
build/fuzz/fuzz_dbgate: build/fuzz/obj/controller/dbgate_role.o
build/fuzz/fuzz_dbgate: FUZZ_OVS = build/fuzz/obj/controller/dbgate_role.o -Wl,--start-group $(OVS)/build/ovsdb/.libs/libovsdb.a $(filter %/libopenvswitch.a %/libopenvswitchavx512.a,$(ovs_objs)) -Wl,--end-group
build/fuzz/libfuzzed.a: $(fuzz_objs)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(fuzzers): build/fuzz/%: build/fuzz/obj/tests/fuzz/%.o build/fuzz/libfuzzed.a $(GEN)/libjansson.a
	@echo "  LINK  $@"
	$(Q)clang $(FUZZ_CFLAGS) -fsanitize=fuzzer -o $@ $< build/fuzz/libfuzzed.a $(GEN)/libjansson.a $(FUZZ_OVS) -Wl,--as-needed $(DPDK_LIBS) $(MIGRATE_LIBS) $(XEN_LIBS) -lpcap -lssl -lcrypto $(if $(FUZZ_OVS),-lnuma) -lm

-include $(shell find build -name '*.d' -type f -not -path 'build/ovs/*' 2>/dev/null)

# --- source hygiene -----------------------------------------------------------
all_src := $(foreach d,lib lib/hv lib/ovs netback vlan netflow migrate vswitch vswitch/fast controller xapi-net tools tools/cell perf tests/unit tests/ovs tests/fuzz,$(wildcard $d/*.c $d/*.h))
fmt: deps-test
	clang-format -i $(all_src)
fmt-check: deps-test
	$(Q)clang-format --dry-run -Werror $(all_src)
lint: deps-test
	$(Q)$(MAKE) --no-print-directory $(OVS)/stamp
	$(Q)tests/lint.sh

compile_commands.json: Makefile
	$(Q)$(MAKE) --no-print-directory -Bn programs tests V=1 SANITIZE= | \
	    /usr/bin/python3 tests/compile_commands.py >$@

clean:
	rm -rf $(filter-out build/ovs,$(wildcard build/*)) compile_commands.json
