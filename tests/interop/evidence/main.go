// SPDX-License-Identifier: Apache-2.0

// Judges evidence with the verifiers of others: a JSON object a line in, a line out, which is "" where
// it is taken, else why not. What a service would answer is in `documents`, by its URL.
package main

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	sevabi "github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	sev "github.com/google/go-sev-guest/verify"
	sevtrust "github.com/google/go-sev-guest/verify/trust"
	tdx "github.com/google/go-tdx-guest/verify"
	"github.com/hf/nitrite"
	"github.com/veraison/ccatoken"
)

type document struct {
	Body   []byte
	Header map[string][]string
}

type question struct {
	TEE         string
	Product     string
	Now         int64
	Roots       []byte
	Evidence    []byte
	Certificate []byte
	Kind        string
	Documents   map[string]document
}

type sevGetter struct{ documents map[string]document }

func (g sevGetter) Get(url string) ([]byte, error) {
	found, ok := g.documents[url]
	if !ok {
		return nil, fmt.Errorf("no document at %s", url)
	}
	return found.Body, nil
}

type tdxGetter struct{ documents map[string]document }

func (g tdxGetter) Get(url string) (map[string][]string, []byte, error) {
	found, ok := g.documents[url]
	if !ok {
		return nil, nil, fmt.Errorf("no document at %s", url)
	}
	return found.Header, found.Body, nil
}

func parse(text []byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		one, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, nil
}

func snp(q question) error {
	roots, err := parse(q.Roots) // ASK, ARK, ASVK
	if err != nil {
		return err
	}
	if len(roots) != 3 {
		return fmt.Errorf("expected 3 roots, got %d", len(roots))
	}
	trusted := &sevtrust.AMDRootCerts{
		ProductLine:  q.Product,
		ProductCerts: &sevtrust.ProductCerts{Ask: roots[0], Ark: roots[1], Asvk: roots[2]},
	}
	report, err := sevabi.ReportToProto(q.Evidence)
	if err != nil {
		return err
	}
	chain := &spb.CertificateChain{VcekCert: q.Certificate}
	if q.Kind == "VLEK" {
		chain = &spb.CertificateChain{VlekCert: q.Certificate}
	}
	attestation := &spb.Attestation{Report: report, CertificateChain: chain}
	return sev.SnpAttestation(attestation, &sev.Options{
		CheckRevocations:    true,
		DisableCertFetching: true,
		Getter:              sevGetter{q.Documents},
		Now:                 time.Unix(q.Now, 0),
		TrustedRoots:        map[string][]*sevtrust.AMDRootCerts{q.Product: {trusted}},
	})
}

func td(q question) error {
	roots, err := parse(q.Roots)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, one := range roots {
		pool.AddCert(one)
	}
	return tdx.RawTdxQuote(q.Evidence, &tdx.Options{
		CheckRevocations: true,
		GetCollateral:    true,
		Getter:           tdxGetter{q.Documents},
		Now:              time.Unix(q.Now, 0),
		TrustedRoots:     pool,
	})
}

func cca(q question) error {
	block, _ := pem.Decode(q.Roots)
	if block == nil {
		return fmt.Errorf("expected a public key")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	token, err := ccatoken.DecodeAndValidateEvidenceFromCBOR(q.Evidence)
	if err != nil {
		return err
	}
	return token.Verify(key)
}

func nitro(q question) error {
	roots, err := parse(q.Roots)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, one := range roots {
		pool.AddCert(one)
	}
	found, err := nitrite.Verify(q.Evidence, nitrite.VerifyOptions{
		Roots:       pool,
		CurrentTime: time.Unix(q.Now, 0),
	})
	if err == nil && !found.SignatureOK {
		err = fmt.Errorf("the signature is not good")
	}
	return err
}

func judge(line []byte) (err error) {
	defer func() {
		if found := recover(); found != nil {
			err = fmt.Errorf("panic: %v", found)
		}
	}()
	var q question
	if err := json.Unmarshal(line, &q); err != nil {
		return err
	}
	switch q.TEE {
	case "snp":
		return snp(q)
	case "tdx":
		return td(q)
	case "cca":
		return cca(q)
	case "nitro":
		return nitro(q)
	}
	return fmt.Errorf("unknown TEE %q", q.TEE)
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		text := ""
		if err := judge(lines.Bytes()); err != nil {
			text = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(text)
	}
}
