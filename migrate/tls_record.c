#include "tls_record.h"

#include <dlfcn.h>
#include <errno.h>
#include <intel-ipsec-mb.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { TAG = 16, IV = 12, KEY_MAX = 32 };

/* The two cipher suites, and libipsec-mb's functions for them: none if it or the CPU's
 * vector AES is missing. */
struct suite {
    const char *hash;
    size_t secret, key;
    const EVP_CIPHER *(*cipher)(void);
    aes_gcm_pre_t pre;
    aes_gcm_init_t init;
    aes_gcm_enc_dec_update_t encrypt, decrypt;
    aes_gcm_enc_dec_finalize_t encrypt_end, decrypt_end;
};

struct tls_keys {
    struct gcm_key_data key;
    struct gcm_context_data record; /* the one at hand */
    const struct suite *suite;
    EVP_CIPHER_CTX *evp; /* or NULL: libipsec-mb */
    uint64_t sequence;   /* starts again with each key */
    uint8_t iv[IV];
    uint8_t secret[TLS_SECRET_MAX];
};

static struct suite suites[] = {
    {.hash = "SHA256", .secret = 32, .key = 16, .cipher = EVP_aes_128_gcm},
    {.hash = "SHA384", .secret = 48, .key = 32, .cipher = EVP_aes_256_gcm},
};

static void
take_functions(const IMB_MGR *m)
{
    suites[0].pre = m->gcm128_pre;
    suites[0].init = m->gcm128_init;
    suites[0].encrypt = m->gcm128_enc_update;
    suites[0].decrypt = m->gcm128_dec_update;
    suites[0].encrypt_end = m->gcm128_enc_finalize;
    suites[0].decrypt_end = m->gcm128_dec_finalize;
    suites[1].pre = m->gcm256_pre;
    suites[1].init = m->gcm256_init;
    suites[1].encrypt = m->gcm256_enc_update;
    suites[1].decrypt = m->gcm256_dec_update;
    suites[1].encrypt_end = m->gcm256_enc_finalize;
    suites[1].decrypt_end = m->gcm256_dec_finalize;
}

/* Loaded and not linked, so that a host without it still migrates. */
static void
find_ipsec_mb(void)
{
    void *lib = dlopen("libIPSec_MB.so.1", RTLD_NOW | RTLD_LOCAL);
    IMB_MGR *(*make)(uint64_t) = lib ? (IMB_MGR * (*)(uint64_t)) dlsym(lib, "alloc_mb_mgr") : NULL;
    void (*destroy)(IMB_MGR *) = lib ? (void (*)(IMB_MGR *))dlsym(lib, "free_mb_mgr") : NULL;
    void (*init)(IMB_MGR *, IMB_ARCH *) =
        lib ? (void (*)(IMB_MGR *, IMB_ARCH *))dlsym(lib, "init_mb_mgr_auto") : NULL;
    unsigned (*version)(void) = lib ? (unsigned (*)(void))dlsym(lib, "imb_get_version") : NULL;
    /* The table of functions and the keys are laid out as our header says: 1.x and no older. */
    bool fits = version && version() >= IMB_VERSION_NUM && version() >> 16 == IMB_VERSION_NUM >> 16;
    IMB_MGR *m = fits && make && destroy && init ? make(0) : NULL;

    if (m) {
        init(m, NULL);
        if (m->features & IMB_FEATURE_VAES) {
            take_functions(m);
        }
        destroy(m);
    }
}

/* --- keys ----------------------------------------------------------------- */

/* HKDF-Expand-Label without context (RFC 8446 7.1). */
static int
expand(const struct tls_keys *k, const char *label, uint8_t *out, size_t n)
{
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)k->suite->hash, 0),
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)k->secret, k->suite->secret),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (char *)label, strlen(label)),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "TLS13-KDF", NULL);
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(kdf);
    int ok = ctx && EVP_KDF_derive(ctx, out, n, params) == 1;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok ? 0 : EPROTO;
}

static int
use_secret(struct tls_keys *k)
{
    uint8_t key[KEY_MAX];
    int error = expand(k, "key", key, k->suite->key);

    error = error ? error : expand(k, "iv", k->iv, IV);
    if (!error) {
        k->sequence = 0;
        if (!k->evp) {
            k->suite->pre(key, &k->key);
        } else if (EVP_CipherInit_ex(k->evp, k->suite->cipher(), NULL, key, NULL, 1) != 1) {
            error = EPROTO;
        }
    }
    OPENSSL_cleanse(key, sizeof key);
    return error;
}

int
tls_keys_create(const uint8_t *secret, size_t n, enum tls_code code, struct tls_keys **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct suite *suite = NULL;
    struct tls_keys *k;
    int error;

    *out = NULL;
    pthread_once(&once, find_ipsec_mb);
    for (unsigned i = 0; i < sizeof suites / sizeof *suites && !suite; i++) {
        suite = suites[i].secret == n ? &suites[i] : NULL;
    }
    if (!suite) {
        return EINVAL;
    }
    k = aligned_alloc(64, (sizeof *k + 63) / 64 * 64);
    if (!k) {
        return ENOMEM;
    }
    memset(k, 0, sizeof *k);
    k->suite = suite;
    memcpy(k->secret, secret, n);
    if (code == TLS_OPENSSL || !suite->init) {
        k->evp = EVP_CIPHER_CTX_new();
    }
    error = k->evp || (code == TLS_FASTEST && suite->init) ? use_secret(k) : ENOMEM;
    if (error) {
        tls_keys_destroy(k);
        return error;
    }
    *out = k;
    return 0;
}

void
tls_keys_destroy(struct tls_keys *k)
{
    if (k) {
        EVP_CIPHER_CTX_free(k->evp);
        OPENSSL_cleanse(k, sizeof *k);
        free(k);
    }
}

int
tls_keys_update(struct tls_keys *k)
{
    uint8_t next[TLS_SECRET_MAX];
    int error = expand(k, "traffic upd", next, k->suite->secret);

    if (!error) {
        memcpy(k->secret, next, k->suite->secret);
        error = use_secret(k);
    }
    OPENSSL_cleanse(next, sizeof next);
    return error;
}

uint64_t
tls_keys_records(const struct tls_keys *k)
{
    return k->sequence;
}

/* --- records -------------------------------------------------------------- */

/* The head is authenticated, the nonce is the sequence number over the IV (RFC 8446 5.3). */
static void
begin(struct tls_keys *k, const uint8_t *head, bool sealing)
{
    uint8_t nonce[IV];
    int n;

    memcpy(nonce, k->iv, IV);
    for (unsigned i = 0; i < 8; i++) {
        nonce[IV - 1 - i] ^= (uint8_t)(k->sequence >> 8 * i);
    }
    k->sequence++;
    if (!k->evp) {
        k->suite->init(&k->key, &k->record, nonce, head, TLS_RECORD_HEAD);
    } else {
        EVP_CipherInit_ex(k->evp, NULL, NULL, NULL, nonce, sealing);
        EVP_CipherUpdate(k->evp, NULL, &n, head, TLS_RECORD_HEAD);
    }
}

static void
piece(struct tls_keys *k, uint8_t *out, const uint8_t *in, size_t len, bool sealing)
{
    int n;

    if (k->evp) {
        EVP_CipherUpdate(k->evp, out, &n, in, len);
    } else if (sealing) {
        k->suite->encrypt(&k->key, &k->record, out, in, len);
    } else {
        k->suite->decrypt(&k->key, &k->record, out, in, len);
    }
}

static void
make_tag(struct tls_keys *k, uint8_t tag[TAG])
{
    int n;

    if (k->evp) {
        EVP_CipherFinal_ex(k->evp, tag, &n);
        EVP_CIPHER_CTX_ctrl(k->evp, EVP_CTRL_AEAD_GET_TAG, TAG, tag);
    } else {
        k->suite->encrypt_end(&k->key, &k->record, tag, TAG);
    }
}

static bool
tag_fits(struct tls_keys *k, const uint8_t tag[TAG])
{
    uint8_t ours[TAG];
    int n;

    if (k->evp) {
        return EVP_CIPHER_CTX_ctrl(k->evp, EVP_CTRL_AEAD_SET_TAG, TAG, (void *)tag) == 1 &&
               EVP_CipherFinal_ex(k->evp, ours, &n) == 1;
    }
    k->suite->decrypt_end(&k->key, &k->record, ours, TAG);
    return !CRYPTO_memcmp(ours, tag, TAG);
}

size_t
tls_seal(struct tls_keys *k, enum tls_content content, const struct iovec *from, size_t len,
         uint8_t *out)
{
    const size_t body = len + TLS_RECORD_EXTRA;
    const uint8_t head[TLS_RECORD_HEAD] = {TLS_DATA, 3, 3, (uint8_t)(body >> 8), (uint8_t)body};
    const uint8_t type = content;

    memcpy(out, head, sizeof head);
    out += sizeof head;
    begin(k, head, true);
    for (; len; from++) {
        size_t n = from->iov_len < len ? from->iov_len : len;

        piece(k, out, from->iov_base, n, true);
        out += n;
        len -= n;
    }
    piece(k, out, &type, sizeof type, true);
    make_tag(k, out + sizeof type);
    return TLS_RECORD_HEAD + body;
}

size_t
tls_record_len(const uint8_t head[TLS_RECORD_HEAD])
{
    size_t body = head[3] << 8 | head[4];

    return head[0] == TLS_DATA && head[1] == 3 && head[2] == 3 && body > TLS_RECORD_EXTRA &&
                   body <= TLS_RECORD + TLS_RECORD_EXTRA
               ? TLS_RECORD_HEAD + body
               : 0;
}

int
tls_open(struct tls_keys *k, const uint8_t *record, size_t len, const struct iovec *to,
         uint8_t *content)
{
    const uint8_t *at = record + TLS_RECORD_HEAD;

    begin(k, record, false);
    for (len -= TLS_RECORD_HEAD + TLS_RECORD_EXTRA; len; to++) {
        size_t n = to->iov_len < len ? to->iov_len : len;

        piece(k, to->iov_base, at, n, false);
        at += n;
        len -= n;
    }
    piece(k, content, at, 1, false);
    /* Zero as the last byte is padding. */
    return !tag_fits(k, at + 1) || !*content ? EBADMSG : 0;
}
