package backup

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"a3os.app/libs/dsse"
)

const payloadType = "application/vnd.a3os.backup.v1+json"

// NewManifestKey makes the key that a plane signs manifests with, a signed-note key (golang.org/x/mod/sumdb/note).
func NewManifestKey(plane string) (private, public string, err error) {
	return note.GenerateKey(rand.Reader, "a3os.app/"+plane+"/backup")
}

func sign(ctx context.Context, payload []byte, private string) ([]byte, error) {
	signer, err := note.NewSigner(strings.TrimSpace(private))
	if err != nil {
		return nil, errors.New("the key that signs manifests is not a signed-note key") // the library's error may repeat it
	}
	e, err := dsse.Sign(ctx, signer, payloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign the manifest: %w", err)
	}
	return json.MarshalIndent(e, "", " ")
}

// mostManifest bounds what is read before it is believed.
const mostManifest = 16 << 20

func readEnvelope(dir string) ([]byte, error) {
	file := filepath.Join(dir, manifestFile)
	info, err := os.Lstat(file)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > mostManifest) {
		err = errors.New("it is no file of a manifest's size")
	}
	if err != nil {
		return nil, refuse("%s holds no backup: %w", dir, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, refuse("%s holds no backup: %w", dir, err)
	}
	return text, nil
}

// claimed is the manifest of a backup as it stands there, which nothing vouches for.
func claimed(dir string) ([]byte, error) {
	text, err := readEnvelope(dir)
	if err != nil {
		return nil, err
	}
	e, err := dsse.Parse(text, payloadType)
	if err != nil {
		return nil, refuse("%s is no manifest of a backup: %w", filepath.Join(dir, manifestFile), err)
	}
	return e.DecodeB64Payload()
}

// signedManifest is the manifest of a backup that a plane signed.
func signedManifest(ctx context.Context, dir string, whose Whose) ([]byte, error) {
	verifier, err := note.NewVerifier(strings.TrimSpace(whose.ManifestKey))
	if err != nil {
		return nil, errors.New("the key of manifests is not a signed-note verifier key of the form NAME+HASH+KEY")
	}
	text, err := readEnvelope(dir)
	if err != nil {
		return nil, err
	}
	payload, _, err := dsse.Open(ctx, text, payloadType, verifier)
	switch {
	case errors.Is(err, dsse.ErrMalformed):
		return nil, refuse("%s is no manifest of a backup: %w", filepath.Join(dir, manifestFile), err)
	case errors.Is(err, dsse.ErrStranger):
		return nil, refuse("the manifest in %s: %w: it is of another plane", dir, err)
	case err != nil:
		return nil, refuse("the manifest in %s: %w", dir, err)
	}
	return payload, nil
}
