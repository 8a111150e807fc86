/* The frontend's frames, offload flags, command line and multicast list: all
 * that needs no ring. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "netfront.h"
#include "offload.h"

/* --- frames: no rings needed ----------------------------------------------------- */

static struct nf_stream
stream(int family, uint32_t size, uint16_t mss, enum nf_csum_mode csum)
{
    struct nf_stream s = {
        .src_mac = {2, 0, 0, 0, 0, 1},
        .dst_mac = {2, 0, 0, 0, 0, 2},
        .family = family,
        .src_ip = {10, 0, 0, 1, 5, 6, 7, 8},
        .dst_ip = {10, 0, 0, 2, 9, 9, 9, 9},
        .src_port = 1000,
        .dst_port = NF_STREAM_PORT,
        .size = size,
        .mss = mss,
        .csum = csum,
    };
    return s;
}

/* 'frame' as if it had been received in pieces of a page. */
static void
as_received(struct nf_rx_frame *f, uint8_t *frame, uint32_t len)
{
    memset(f, 0, sizeof *f);
    f->len = len;
    for (uint32_t at = 0; at < len; at += HV_PAGE_SIZE) {
        uint32_t n = len - at < HV_PAGE_SIZE ? len - at : HV_PAGE_SIZE;
        f->frag[f->n_frags++] = (struct iovec){frame + at, n};
    }
}

static void
test_template(int family, uint32_t size, uint16_t mss, enum nf_csum_mode csum, uint16_t vlan)
{
    static uint8_t frame[65536];
    struct nf_stream s = stream(family, size, mss, csum);
    struct nf_template t;
    struct nf_rx_frame f;
    struct nf_stamp stamp;
    struct frame_layout layout;
    char why[128];

    s.vlan = vlan;
    CHECK(!nf_template_init(&t, &s, 7, 1, 99, why, sizeof why));
    nf_template_fill(&t, frame);
    nf_template_stamp(&t, frame, 5, 0x1234567890u);
    CHECK(frame_parse(frame, size, &layout));
    CHECK(layout.payload == t.payload && layout.l4_proto == (mss ? IPPROTO_TCP : IPPROTO_UDP));
    if (csum == NF_CSUM_FULL) {
        CHECK(csum_verify(frame, &layout));
    }
    if (csum == NF_CSUM_BLANK) {
        static uint8_t copy[65536];
        memcpy(copy, frame, size);
        CHECK(csum_set_pseudo(copy, &layout) && !memcmp(copy, frame, size));
    }
    as_received(&f, frame, size);
    CHECK(nf_frame_check(&f, NF_STREAM_PORT, &stamp) == NF_STAMPED);
    CHECK(nf_stamp_seq(&stamp) == 0x1234567890u && stamp.flow == htonl(5) &&
          stamp.sender == htons(7));
    CHECK(nf_frame_check(&f, 4711, &stamp) == NF_FOREIGN);
    CHECK(!memcmp(frame + 6, s.src_mac, 6));
    nf_template_stamp(&t, frame, 5 + 3 * NF_STREAM_PORTS, 0x1234567890u);
    CHECK(nf_frame_check(&f, NF_STREAM_PORT, &stamp) == NF_STAMPED &&
          stamp.flow == htonl(5 + 3 * NF_STREAM_PORTS));
    CHECK(frame[8] == s.src_mac[2] + 3 && (csum != NF_CSUM_FULL || csum_verify(frame, &layout)));
    if (size > t.payload + sizeof stamp) {
        frame[size - 1] ^= 1;
        CHECK(nf_frame_check(&f, NF_STREAM_PORT, &stamp) == NF_CORRUPT);
        frame[size - 1] ^= 1;
    }
    as_received(&f, frame, size - 1);
    CHECK(nf_frame_check(&f, NF_STREAM_PORT, &stamp) == NF_CORRUPT);
}

/* What cutting leaves must still be recognised, segment by segment. */
static void
test_cut_frame(void)
{
    static uint8_t frame[65536], out[4096];
    struct nf_stream s = stream(AF_INET, 9014, 1460, NF_CSUM_BLANK);
    struct nf_template t;
    struct gso_iter it;
    struct nf_rx_frame f;
    struct nf_stamp stamp;
    char why[128];
    unsigned n = 0, segments = 0;
    size_t len;

    CASE("a frame cut on the way is recognised in every segment");
    CHECK(!nf_template_init(&t, &s, 7, 1, 99, why, sizeof why));
    nf_template_fill(&t, frame);
    nf_template_stamp(&t, frame, 0, 1);
    CHECK(gso_begin(&it, frame, s.size, s.mss, GSO_TUNNEL_NONE, 0, false));
    while ((len = gso_next(&it, out, sizeof out)) > 0) {
        as_received(&f, out, (uint32_t)len);
        enum nf_verdict v = nf_frame_check(&f, NF_STREAM_PORT, &stamp);
        CHECK(v == (n ? NF_SEGMENT : NF_STAMPED));
        segments += v == NF_SEGMENT;
        n++;
    }
    CHECK(n == (9014 - 54 + 1459) / 1460 && segments == n - 1);
}

static void
test_frames(void)
{
    static const uint16_t vlans[] = {0, 100};

    CASE("test frames: built, stamped, checked");
    for (unsigned i = 0; i < 2; i++) {
        test_template(AF_INET, 66, 0, NF_CSUM_ZERO, vlans[i]);
        test_template(AF_INET, 1514, 0, NF_CSUM_FULL, vlans[i]);
        test_template(AF_INET, 1515, 0, NF_CSUM_BLANK, vlans[i]);
        test_template(AF_INET6, 90, 0, NF_CSUM_FULL, vlans[i]);
        test_template(AF_INET, 65226, 1448, NF_CSUM_BLANK, vlans[i]);
        test_template(AF_INET6, 65226, 1428, NF_CSUM_BLANK, vlans[i]);
    }
    struct nf_stream s = stream(AF_INET, 61, 0, NF_CSUM_ZERO);
    struct nf_template t;
    char why[128];
    CHECK(nf_template_init(&t, &s, 1, 0, 0, why, sizeof why) == EINVAL);
    s.size = 62;
    CHECK(!nf_template_init(&t, &s, 1, 0, 0, why, sizeof why));
    test_cut_frame();
}

static void
test_headers(void)
{
    uint8_t f[128] = {0};
    struct nf_headers h;

    CASE("headers: truncated, nested, fragments");
    CHECK(!nf_headers_find(f, 0, &h) && !nf_headers_find(f, 13, &h) && !nf_headers_find(f, 14, &h));
    f[12] = 8; /* IPv4 */
    f[14] = 0x45;
    f[17] = 28;
    f[23] = IPPROTO_UDP;
    CHECK(!nf_headers_find(f, 33, &h) && !nf_headers_find(f, 41, &h));
    CHECK(nf_headers_find(f, 42, &h) && h.l4 == 34 && h.payload == 42);
    f[14] = 0x44; /* header shorter than allowed */
    CHECK(!nf_headers_find(f, 128, &h));
    f[14] = 0x4f; /* options up to 60 bytes */
    f[17] = 68;
    CHECK(nf_headers_find(f, 128, &h) && h.l4 == 74);
    f[20] = 0x20; /* more fragments */
    CHECK(!nf_headers_find(f, 128, &h));
    f[20] = 0;
    f[23] = IPPROTO_TCP;
    f[74 + 12] = 4 << 4; /* TCP header too short */
    CHECK(!nf_headers_find(f, 128, &h));

    memset(f, 0, sizeof f);
    f[12] = 0x86;
    f[13] = 0xdd;
    f[14] = 0x60;
    f[20] = IPPROTO_HOPOPTS; /* each one names the next: to the end of the frame */
    CHECK(!nf_headers_find(f, sizeof f, &h));
    f[54] = IPPROTO_UDP;
    CHECK(nf_headers_find(f, sizeof f, &h) && h.l4 == 62 && h.ip_version == 6);
    f[55] = 255; /* an extension longer than the frame */
    CHECK(!nf_headers_find(f, sizeof f, &h));
}

static void
test_vnet(void)
{
    static uint8_t frame[65536];
    struct nf_stream s = stream(AF_INET, 9000, 1460, NF_CSUM_BLANK);
    const struct nf_caps both = {true, true}, none = {false, false};
    struct virtio_net_hdr v, back;
    struct nf_template t;
    struct nf_meta m;
    struct frame_layout layout;
    char why[128];

    CASE("virtio header: both ways, and what the peer cannot do");
    CHECK(!nf_template_init(&t, &s, 1, 0, 0, why, sizeof why));
    nf_template_fill(&t, frame);
    CHECK(!nf_meta_to_vnet(&t.meta, frame, 4096, &v));
    CHECK(v.flags == VIRTIO_NET_HDR_F_NEEDS_CSUM && v.csum_start == 34 && v.csum_offset == 16 &&
          v.gso_type == VIRTIO_NET_HDR_GSO_TCPV4 && v.gso_size == 1460 && v.hdr_len == 54);
    CHECK(!nf_meta_from_vnet(&v, frame, s.size, &both, &m));
    CHECK(m.csum_blank && m.gso_type == XEN_NETIF_GSO_TYPE_TCPV4 && m.gso_size == 1460);
    CHECK(!nf_meta_to_vnet(&m, frame, 4096, &back) && !memcmp(&v, &back, sizeof v));
    CHECK(nf_meta_from_vnet(&v, frame, s.size, &none, &m) == EINVAL); /* GSO without checksums */
    m.gso_type = XEN_NETIF_GSO_TYPE_TCPV6;                            /* contradicts the frame */
    CHECK(nf_meta_to_vnet(&m, frame, 4096, &v) == EINVAL);
    CHECK(nf_meta_to_vnet(&t.meta, frame, 40, &v) == EINVAL); /* header not in the fragment */

    s = stream(AF_INET6, 1000, 0, NF_CSUM_BLANK);
    CHECK(!nf_template_init(&t, &s, 1, 0, 0, why, sizeof why));
    nf_template_fill(&t, frame);
    CHECK(!nf_meta_to_vnet(&t.meta, frame, 1000, &v));
    CHECK(!nf_meta_from_vnet(&v, frame, 1000, &none, &m) && !m.csum_blank);
    CHECK(frame_parse(frame, 1000, &layout) && csum_verify(frame, &layout)); /* filled here */
    v.csum_start = 999;
    CHECK(nf_meta_from_vnet(&v, frame, 1000, &both, &m) == EINVAL);
    v = (struct virtio_net_hdr){.gso_type = VIRTIO_NET_HDR_GSO_UDP};
    CHECK(nf_meta_from_vnet(&v, frame, 1000, &both, &m) == EINVAL);
    v = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_DATA_VALID};
    CHECK(!nf_meta_from_vnet(&v, frame, 1000, &both, &m) && m.data_validated && !m.csum_blank);
}

/* --- options, lists --------------------------------------------------------------------- */

static int
parse(struct nf_config *c, const char *line)
{
    static char buf[512];
    char *argv[40] = {"weft-netfront"}, *save = NULL;
    int argc = 1;

    snprintf(buf, sizeof buf, "%s", line);
    for (char *w = strtok_r(buf, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        argv[argc++] = w;
    }
    /* Error messages are meant for people: out of the way here. */
    fflush(stderr);
    int keep = dup(2), null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    int status = nf_options_parse(c, argc, argv);
    dup2(keep, 2);
    close(keep);
    close(null);
    return status;
}

static void
test_options(void)
{
    static struct nf_config c;

    CASE("command line");
    CHECK(parse(&c, "--dir d --domid 3 --mode tap --ip 10.0.0.1/24") == -1);
    CHECK(c.domid == 3 && c.mode == &nf_mode_tap && c.queues == 1 && c.ready_fd == -1);
    CHECK(parse(&c, "--dir d --domid=3 --mode=blast --dst-mac 02:00:00:00:00:01 --rate 1e6 "
                    "--count 10 --size 1514") == -1);
    CHECK(c.rate_pps == 1000000 && !c.vif.rate && c.count == 10 && c.stream.size == 1514);
    CHECK(parse(&c, "--dir d --domid 3 --mode sink --create --bridge b --rate 1000,50 "
                    "--backend-key a=b --backend-key c=d=e") == -1);
    CHECK(!strcmp(c.vif.rate, "1000,50") && c.n_backend_keys == 2 &&
          !strcmp(c.backend_keys[1].value, "d=e") && c.vif.n_backend_keys == 2);
    CHECK(parse(&c, "--dir d --domid 3 --mode blast --ping --dst-mac 02:00:00:00:00:01 "
                    "--dst-ip fd00::2") == -1);
    CHECK(c.mode == &nf_mode_ping && c.stream.family == AF_INET6 &&
          c.stream.csum == NF_CSUM_BLANK && c.stream.size == 82);
    static const char *const wrong[] = {
        "--domid 3 --mode tap",
        "--dir d --mode tap",
        "--dir d --domid 3",
        "--dir d --domid 0 --mode tap",
        "--dir d --domid 32752 --mode tap",
        "--dir d --domid 3 --mode blast",
        "--dir d --domid 3 --mode tap --create",
        "--dir d --domid 3 --mode tap --queues 9",
        "--dir d --domid 3 --mode tap --queues -1",
        "--dir d --domid 3 --mode tap --bogus",
        "--dir d --domid 3 --mode tap --mac 01:00:00:00:00:00",
        "--dir d --domid 3 --mode tap --create=yes --bridge b",
        "--dir d --domid 3 --mode tap --bridge",
        "--dir d --domid 3 --mode tap extra",
        "--dir d --domid 3 --mode blast --dst-mac 02:00:00:00:00:01 --size 61",
        "--dir d --domid 3 --mode blast --dst-mac 02:00:00:00:00:01 --gso 1448 --csum full",
        "--dir d --domid 3 --mode blast --dst-mac 02:00:00:00:00:01 --src-ip ::1 --dst-ip 1.2.3.4",
        "--dir d --domid 3 --mode sink --mcast-join 02:00:00:00:00:01",
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(parse(&c, wrong[i]) == 2);
    }
}

static void
test_mcast_file(void)
{
    static const char text[] = "1    lo              1     0     333300000001\n"
                               "2    eth0            1     0     01005e000001\n"
                               "2    eth0            2     0     333300000001\n"
                               "2    eth0            1     0     nonsense\n"
                               "3    eth00           1     0     01005e0000ff\n";
    struct nf_mcast_set set;
    char path[] = "/tmp/weft-mcast-XXXXXX";
    int fd = mkstemp(path);

    CASE("multicast list of an interface");
    CHECK(fd >= 0 && write(fd, text, sizeof text - 1) == sizeof text - 1);
    CHECK(!nf_mcast_read_proc(fd, "eth0", &set) && set.n == 2 && set.mac[1][0] == 0x33);
    CHECK(!nf_mcast_read_proc(fd, "eth1", &set) && set.n == 0);
    close(fd);
    unlink(path);
}

int
main(void)
{
    test_frames();
    test_headers();
    test_vnet();
    test_options();
    test_mcast_file();
    return check_done();
}
