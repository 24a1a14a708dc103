//go:build linux

package opdbus

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/privatebus"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
	"github.com/ghostbridge/ghostbridge/pkg/webauthn"
)

const rootApprover = `{"uid":0,"role":"approver","session":"s1"}`

// loginCall calls one of the daemon's methods for a login.
func (r *rig) loginCall(login, iface, member, signature string, args ...any) (string, error) {
	r.t.Helper()
	text, err := json.Marshal(args)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(args) == 0 {
		text = []byte("[]")
	}
	return r.busctl(0, "Logins", "Call", "sossss", login, names.BusObject, names.BusInterface+"."+iface, member, signature, string(text))
}

func (r *rig) loginLamp(login string) (string, error) {
	r.t.Helper()
	return r.loginCall(login, "Bus", "Call", "sossss", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp", "Switch", "b", "[true]")
}

// softKey is a security key in software.
type softKey struct {
	key   *ecdsa.PrivateKey
	id    []byte
	count uint32
}

func newSoftKey(t *testing.T, id string) *softKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &softKey{key: k, id: []byte(id)}
}

func clientData(typ, challenge string) webauthn.Bytes {
	return fmt.Appendf(nil, `{"type":%q,"challenge":%q,"origin":"http://localhost:8096"}`, typ, challenge)
}

func (k *softKey) data(flags byte) []byte {
	k.count++
	h := sha256.Sum256([]byte("localhost"))
	return binary.BigEndian.AppendUint32(append(h[:], flags), k.count)
}

func (k *softKey) register(t *testing.T, challenge string) string {
	public, err := x509.MarshalPKIXPublicKey(k.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	d := append(k.data(0x41), make([]byte, 16)...)
	d = append(append(d, byte(len(k.id)>>8), byte(len(k.id))), k.id...)
	text, err := json.Marshal(webauthn.Registration{ID: k.id, Public: public, Data: d, ClientData: clientData("webauthn.create", challenge), Name: "blue key"})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// touched is a login with an answer to a challenge.
func (k *softKey) touched(t *testing.T, challenge string) string {
	a := webauthn.Assertion{ID: k.id, Data: k.data(1), ClientData: clientData("webauthn.get", challenge)}
	h := sha256.Sum256(a.ClientData)
	sum := sha256.Sum256(append(append([]byte{}, a.Data...), h[:]...))
	sig, err := k.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	a.Signature = sig
	text, err := json.Marshal(opdbus.LoginClaim{UID: 0, Role: "approver", Assertion: &a})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// challenge asks for one; the second is for touching a key to register another.
func (r *rig) challenge(about string) (challenge, touch string) {
	r.t.Helper()
	out, err := r.busctl(0, "Logins", "Challenge", "ss", rootApprover, about)
	if err != nil {
		r.t.Fatal(out, err)
	}
	var c struct{ Challenge, Touch string }
	i := strings.Index(out, "{")
	if err := json.Unmarshal([]byte(out[i:strings.LastIndex(out, "}")+1]), &c); err != nil {
		r.t.Fatal(out, err)
	}
	return c.Challenge, c.Touch
}

const loginRules = `{"version":1,"rules":[
 {"id":"web","clients":["web"],"name":"org.example.Lamp","members":["Switch"],"effect":"approve"},
 {"id":"lamp","clients":["dbus"],"name":"org.example.Lamp","effect":"approve"}]}`

// People who have logged in to gb-web come in through its user alone, as
// themselves.
func TestLogins(t *testing.T) {
	r := newRig(t, loginRules)
	privatebus.Mock(t, r.address, "org.freedesktop.PolicyKit1", "polkitd")
	r.allow(opdbus.PolkitCall)
	r.start()

	out, err := r.busctl(nobody, "Logins", "Call", "sossss", rootApprover, names.BusObject, names.BusInterface+".Approvals", "List", "", "[]")
	r.expect("another user claims a login", out, err, false, "only gb-web's user")
	out, err = r.loginCall(`{"uid":65534,"role":"approver"}`, "Approvals", "List", "")
	r.expect("a role that the user may not have", out, err, false, "may not be approver")
	out, err = r.loginLamp(`{"uid":65534,"role":"viewer"}`)
	r.expect("a viewer", out, err, true, "a viewer changes nothing")
	out, err = r.loginCall(`{"uid":65534,"role":"viewer"}`, "Approvals", "List", "")
	r.expect("a viewer looks", out, err, true, `"ok":true`)
	out, err = r.loginCall(rootApprover, "Bus", "Call", "sossss", "org.example.Lamp", "/org/example/Lamp", "org.example.Lamp", "Fail", "", "[]")
	r.expect("what no rule names the web for", out, err, true, "no rule allows it")
	out, err = r.loginCall(rootApprover, "Logins", "Keys", "s", rootApprover)
	r.expect("itself", out, err, true, "has nothing to do with")

	// Somebody else asks: an approver answers without a key.
	r.switchLamp(nobody, "true")
	waiting := pending(r)
	out, err = r.loginCall(`{"uid":0,"role":"operator"}`, "Approvals", "Approve", "s", waiting)
	r.expect("an operator approves", out, err, true, "only an approver")
	out, err = r.loginCall(rootApprover, "Approvals", "Approve", "s", waiting)
	r.expect("an approver approves", out, err, true, `"approved"`)
	a, err := (&opdbus.Approvals{Dir: r.dir + "/approvals"}).Get(waiting)
	if err != nil || a.Approver == nil || a.Approver.UID != 0 || a.Approver.Entrance != "web" || a.Approver.Client != "root" {
		t.Errorf("%+v, %v", a.Approver, err)
	}

	// The same user asks: a key has to tell the person apart.
	out, err = r.loginLamp(`{"uid":0,"role":"operator"}`)
	r.expect("ask", out, err, true, "needs a person's approval")
	waiting = pending(r)
	out, err = r.loginCall(rootApprover, "Approvals", "Approve", "s", waiting)
	r.expect("approve what the same user asks", out, err, true, "a security key has to tell them apart")
	k := newSoftKey(t, "k1")
	c, _ := r.challenge("register")
	out, err = r.busctl(0, "Logins", "RegisterKey", "ss", rootApprover, k.register(t, c))
	r.expect("register a key", out, err, true, "blue key")
	out, err = r.busctl(0, "Logins", "RegisterKey", "ss", rootApprover, k.register(t, c))
	r.expect("a second key without the first", out, err, false, "has to be touched")
	out, err = r.loginCall(rootApprover, "Approvals", "Approve", "s", waiting)
	r.expect("approve without a touch", out, err, true, "has to be touched")
	c, _ = r.challenge("deny:" + waiting)
	out, err = r.loginCall(k.touched(t, c), "Approvals", "Approve", "s", waiting)
	r.expect("a touch that was for something else", out, err, true, "no challenge for it")
	c, _ = r.challenge("approve:" + waiting)
	good := k.touched(t, c)
	out, err = r.loginCall(newSoftKey(t, "k1").touched(t, c), "Approvals", "Approve", "s", waiting)
	r.expect("a forged touch", out, err, true, "signature is not good")
	out, err = r.loginCall(good, "Approvals", "Approve", "s", waiting)
	r.expect("a challenge that was used up", out, err, true, "no challenge for it")
	c, _ = r.challenge("approve:" + waiting)
	out, err = r.loginCall(k.touched(t, c), "Approvals", "Approve", "s", waiting)
	r.expect("a touch", out, err, true, `"approved"`)
	out, err = r.loginLamp(`{"uid":0,"role":"operator"}`)
	r.expect("what was approved", out, err, true, `"ok":true`)
	if a, err = (&opdbus.Approvals{Dir: r.dir + "/approvals"}).Get(waiting); err != nil || a.Approver.Key != "blue key" || a.State != opdbus.StateUsed {
		t.Errorf("%+v, %v", a, err)
	}
	c, touch := r.challenge("register")
	other := newSoftKey(t, "k2")
	out, err = r.busctl(0, "Logins", "RegisterKey", "ss", k.touched(t, touch), other.register(t, c))
	r.expect("a second key with the first", out, err, true, "blue key")
}

// pending is the newest approval that waits.
func pending(r *rig) string {
	r.t.Helper()
	list, err := (&opdbus.Approvals{Dir: r.dir + "/approvals"}).List()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range list {
		if a.State == opdbus.StatePending {
			return a.ID
		}
	}
	r.t.Fatal("nothing waits")
	return ""
}
