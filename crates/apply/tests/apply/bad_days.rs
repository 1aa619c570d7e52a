use crate::support::*;
#[test]
fn timing() {
    let t = std::time::Instant::now();
    let fake = machine();
    eprintln!("machine {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let _ = inventory(&fake);
    eprintln!("inventory {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let plan = plan(&fake, &spec());
    eprintln!("plan {:?}", t.elapsed());
    let s = Server { fake, plan };
    let t = std::time::Instant::now();
    s.apply().unwrap();
    eprintln!("apply {:?}", t.elapsed());
    let t = std::time::Instant::now();
    s.reboot().unwrap().unwrap();
    eprintln!("reboot {:?}", t.elapsed());
    let t = std::time::Instant::now();
    s.release().unwrap();
    eprintln!("release {:?}", t.elapsed());
    eprintln!("{:#?}", s.fake.effects());
}
