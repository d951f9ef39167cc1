package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// testKey is 00 01 02 … 1f.
func testKey() (k ClusterKey) {
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

const testKeyLine = "lvstun-cluster-key-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

// What is derived must stay the same from version to version: directors of two
// versions share a cluster. The values were computed apart from this program
// (python: hmac, hashlib; RFC 5869 with an empty salt).
func TestDerivedKeysStay(t *testing.T) {
	k := testKey()
	heartbeat, token, identity := k.HeartbeatKey(), k.tokenKey(), k.derive(infoIdentity)
	witness := k.WitnessKey("rs1")
	for _, tt := range []struct{ name, got, want string }{
		{"heartbeat", hex.EncodeToString(heartbeat[:]), "6d95a929977200958f1f55d35950196adcbb3f184cc5d55f830fcb449be2cdf0"},
		{"token", hex.EncodeToString(token[:]), "4d5d656f82c5f929c36e61318bf8567f820a85259e0d6f673b00e107c4b6dd23"},
		{"identity", hex.EncodeToString(identity[:]), "4084554ba7f7b848e81d9600f9b43479f4ffd57944f64c0f59fea7665452655c"},
		{"witness", hex.EncodeToString(witness[:]), "8183225f3b61b4370cd00ddf0f00294a830d9bb5c90db736696b670869cf2ccd"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, tt.got, tt.want)
		}
	}
}

func TestWitnessKeysDiffer(t *testing.T) {
	k := testKey()
	if k.WitnessKey("rs1") == k.WitnessKey("rs2") || k.WitnessKey("rs1") == GenerateKey().WitnessKey("rs1") {
		t.Error("two real servers, or two clusters, share a witness key")
	}
}

func TestGenerateKeyIsNew(t *testing.T) {
	if a, b := GenerateKey(), GenerateKey(); a == b || a == (ClusterKey{}) {
		t.Error("two keys are equal, or none was made")
	}
}

func TestParseKey(t *testing.T) {
	long := base64.StdEncoding.EncodeToString(make([]byte, 33))
	tests := []struct{ name, in, wantErr string }{
		{"as written", testKeyLine, ""},
		{"without end of line", strings.TrimSpace(testKeyLine), ""},
		{"empty", "", "the file is empty"},
		{"only an end of line", "\n", "the file is empty"},
		{"no prefix", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", "not a cluster key"},
		{"another version", strings.Replace(testKeyLine, "-1:", "-2:", 1), "of another version"},
		{"too short", "lvstun-cluster-key-1:AAEC\n", "has 3 bytes, want 32"},
		{"nothing after the prefix", "lvstun-cluster-key-1:\n", "has 0 bytes, want 32"},
		{"too long", "lvstun-cluster-key-1:" + long + "\n", "has 33 bytes, want 32"},
		{"two lines", testKeyLine + testKeyLine, "the key is damaged"},
		{"blank at the end", strings.TrimSpace(testKeyLine) + " \n", "the key is damaged"},
		{"carriage return", strings.TrimSpace(testKeyLine) + "\r\n", "the key is damaged"},
		{"spare bits", strings.Replace(testKeyLine, "8=\n", "9=\n", 1), "the key is damaged"},
		{"no padding", strings.Replace(testKeyLine, "=\n", "\n", 1), "the key is damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := ParseKey([]byte(tt.in))
			if tt.wantErr == "" {
				if err != nil || k != testKey() {
					t.Errorf("error %v, or another key", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if k != (ClusterKey{}) {
				t.Error("a key came with the error")
			}
			if err != nil && strings.Contains(err.Error(), "AAEC") {
				t.Errorf("the error repeats the file: %v", err)
			}
		})
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(testKeyLine))
	f.Add([]byte("lvstun-cluster-key-1:AAEC\n"))
	f.Add([]byte("lvstun-cluster-key-2:\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b)
		if err == nil && strings.TrimSuffix(string(k.file()), "\n") != strings.TrimSuffix(string(b), "\n") {
			t.Errorf("%q is read as a key whose file is another", b)
		}
	})
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cluster.key")
	k := GenerateKey()
	if err := WriteKeyFile(path, k); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	got, err := ReadKeyFile(path)
	if err != nil || got != k {
		t.Errorf("read back: error %v, or another key", err)
	}
	before, _ := os.ReadFile(path)
	if err := WriteKeyFile(path, GenerateKey()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing over a key: error %v, want %v", err, fs.ErrExist)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("a key that was there was changed")
	}
	if err := WriteKeyFile(filepath.Join(t.TempDir(), "none", "key"), k); err == nil {
		t.Error("writing into a folder that is not there: no error")
	}
}

func TestSecretFilesAreGuarded(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := file("open", 0o640, testKeyLine)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, wantErr string }{
		{"read only", file("ro", 0o400, testKeyLine), ""},
		{"group", open, "run `chmod 600 " + open + "`"},
		{"others", file("world", 0o604, testKeyLine), "chmod 600"},
		{"others may write", file("write", 0o602, testKeyLine), "chmod 600"},
		{"a link to an open file", link, "chmod 600"},
		{"folder", dir, "is not a regular file"},
		{"fifo", fifo, "is not a regular file"},
		{"missing", filepath.Join(dir, "none"), "no such file"},
		{"huge", file("huge", 0o600, strings.Repeat("x", 5000)), "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ReadKeyFile(tt.path)
			if tt.wantErr == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if _, err := ReadTokenFile(tt.path); err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("as a token: error %v, want %q", err, tt.wantErr)
			}
		})
	}
}

// A credential that the service manager hands over by an access list looks open to its group, for reading and no more.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(testKeyLine), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, credentials, path string
		good                    bool
	}{
		{"a credential", dir + "/", file("key", 0o440), true},
		{"its group may write", dir, file("write", 0o460), false},
		{"others may read", dir, file("world", 0o444), false},
		{"below the folder", dir, file("below/key", 0o440), false},
		{"beside the folder", filepath.Join(dir, "below"), file("beside", 0o440), false},
		{"no credentials", "", file("none", 0o440), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CREDENTIALS_DIRECTORY", tt.credentials)
			_, err := ReadKeyFile(tt.path)
			if tt.good && err != nil || !tt.good && (err == nil || !strings.Contains(err.Error(), "chmod 600")) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestForeignOwnerIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := WriteKeyFile(path, testKey()); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKeyFile(path); err == nil || !strings.Contains(err.Error(), "run `chown 0 "+path+"`") {
		t.Errorf("error %v, want one that says chown", err)
	}
}

// Whoever prints, logs or encodes a secret gets no byte of it.
func TestSecretsDoNotPrint(t *testing.T) {
	k := testKey()
	token, err := k.Mint(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, secret := range []any{k, &k, token, &token, []any{k, token}, map[string]any{"k": k, "t": token},
		struct {
			K ClusterKey
			T Token
		}{k, token}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U"} {
			fmt.Fprintf(&out, verb+"\n", secret)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("x", "secret", secret)
		}
		b, err := json.Marshal(secret)
		if err != nil {
			t.Error(err)
		}
		out.Write(b)
	}
	fmt.Fprint(&out, k.String(), k.GoString(), token.String(), token.GoString())
	text := out.String()
	mac := token.Bearer()[strings.LastIndex(token.Bearer(), ".")+1:]
	for _, leak := range []string{"AAECAwQF", "00010203", "0001020304", "0x1e, 0x1f", "30 31", "1e1f", mac, hex.EncodeToString([]byte(mac))[:32]} {
		if strings.Contains(text, leak) {
			t.Errorf("%q was printed", leak)
		}
	}
	if !strings.Contains(text, redacted) || !strings.Contains(text, "rs1") {
		t.Error("what was printed does not name the token or say that it hides something")
	}
}
