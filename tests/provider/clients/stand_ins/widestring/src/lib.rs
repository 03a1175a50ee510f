pub struct WideCString(Vec<u16>);

impl WideCString {
    pub fn from_str(text: &str) -> Result<Self, std::convert::Infallible> {
        Ok(Self(text.encode_utf16().chain([0]).collect()))
    }

    pub fn as_ptr(&self) -> *const u16 {
        self.0.as_ptr()
    }

    /// # Safety
    ///
    /// `text` ends with a NUL.
    pub unsafe fn from_ptr_str(text: *const u16) -> Self {
        let length = (0..).take_while(|&n| *text.add(n) != 0).count();
        Self(std::slice::from_raw_parts(text, length + 1).to_vec())
    }

    pub fn to_string_lossy(&self) -> String {
        String::from_utf16_lossy(&self.0[..self.0.len() - 1])
    }
}
